"""The attention kernels agree with attention in float64: ragged batches, every option, slots in any order."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from treechat_kernels.decode_attention import decode_attention
from treechat_kernels.dispatch import attend_with_triton
from treechat_kernels.extend_attention import extend_attention
from treechat_kernels.layout import SPLIT_LEN, Layout, shared_prefixes
from treechat_kernels.shared_prefix_attention import shared_prefix_attention

NUM_SLOTS = 1200
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.fixture
def make(device):
    """Return a function that makes queries, pools and the slots of paths. Slots of no path hold NaN."""

    def made(num_tokens, kv_lens, heads=(6, 2), dim=64, v_dim=None, dtype=torch.float32, shared=0):
        generator = torch.Generator().manual_seed(sum(kv_lens) + dim)
        order = torch.randperm(NUM_SLOTS, generator=generator)
        prefix, order = order[:shared], order[shared:]
        slots = []
        for kv_len in kv_lens:
            slots += [prefix, order[: kv_len - shared]]
            order = order[kv_len - shared :]
        slots = torch.cat(slots)
        q = torch.randn(num_tokens, heads[0], dim, generator=generator)
        pools = [torch.full((NUM_SLOTS, heads[1], d), float("nan")) for d in (dim, v_dim or dim)]
        for pool in pools:
            pool[slots] = torch.randn(len(slots), *pool.shape[1:], generator=generator)
        return *(each.to(dtype).to(device) for each in (q, *pools)), slots.to(device)

    return made


def close(out, expected, dtype=torch.float32):
    torch.testing.assert_close(out.double(), expected, atol=TOLERANCE[dtype], rtol=0)


OPTIONS = {
    "plain": {},
    "window": {"sliding_window": 100},
    "window of one and sinks": {"sliding_window": 1, "sinks": True},
    "all": {"sliding_window": 17, "softcap": 2.0, "sinks": True},
}


def with_sinks(options, num_heads, device):
    if options.get("sinks"):
        return {**options, "sinks": torch.linspace(-1, 2, num_heads, device=device)}
    return options


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("kv_lens", [[1], [15, 129, 400]], ids=str)
def test_decoding_is_attention_of_one_token(make, exact_attention, device, options, kv_lens):
    options = with_sinks(options, 6, device)
    args = make(len(kv_lens), kv_lens)
    out = decode_attention(*args, kv_lens, scaling=0.2, **options)
    close(out, exact_attention(*args, kv_lens, [1] * len(kv_lens), scaling=0.2, **options))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize(
    ("kv_lens", "q_lens"), [([127], [127]), ([15, 129, 200], [1, 17, 45])], ids=["from nothing", "ragged"]
)
def test_extending_is_causal_attention_of_several_tokens(make, exact_attention, device, options, kv_lens, q_lens):
    options = with_sinks(options, 6, device)
    args = make(sum(q_lens), kv_lens)
    out = extend_attention(*args, kv_lens, q_lens, scaling=0.2, **options)
    close(out, exact_attention(*args, kv_lens, q_lens, scaling=0.2, **options))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("shared", [SPLIT_LEN + 30])
def test_a_shared_prefix_read_once_gives_each_sibling_its_own_attention(make, exact_attention, device, options, shared):
    options = with_sinks(options, 6, device)
    kv_lens = [SPLIT_LEN + 31, SPLIT_LEN + 47, 2 * SPLIT_LEN + 1]
    args = make(3, kv_lens, shared=shared)
    out = shared_prefix_attention(*args, kv_lens, shared, scaling=0.2, **options)
    close(out, exact_attention(*args, kv_lens, [1, 1, 1], scaling=0.2, **options))


def test_a_prefix_shorter_than_a_split_is_read_by_each(make, exact_attention):
    args = make(2, [15, 17], shared=9)
    out = shared_prefix_attention(*args, [15, 17], 9, scaling=0.2)
    close(out, exact_attention(*args, [15, 17], [1, 1], scaling=0.2))


SHAPES = [
    ((4, 4), 80, None),
    ((8, 1), 96, None),
    ((5, 1), 112, None),
    ((4, 2), 128, 64),
    ((2, 2), 192, 128),
    ((4, 2), 256, None),
    ((71, 1), 64, None),
    ((2, 1), 16, 8),
]


@pytest.mark.parametrize(
    ("heads", "dim", "v_dim", "dtype"),
    [(*shape, torch.float32) for shape in SHAPES]
    + [(*shape, dtype) for shape in SHAPES[3:5] for dtype in (torch.float16, torch.bfloat16)],
    ids=str,
)
def test_every_head_dimension_and_type(make, exact_attention, heads, dim, v_dim, dtype):
    kv_lens, q_lens = [33, 18], [3, 1]
    args = make(4, kv_lens, heads, dim, v_dim, dtype)
    expected = exact_attention(*args, kv_lens, q_lens, scaling=dim**-0.5)
    layout = Layout.build(kv_lens, q_lens, args[0].device)
    close(attend_with_triton(*args, layout, scaling=dim**-0.5), expected, dtype)


def test_a_path_has_the_same_bits_alone_and_in_a_batch_and_the_same_numbers_however_cut(make):
    kv_lens = [260, 40, 17]
    args = make(3, kv_lens)
    together = decode_attention(*args, kv_lens, scaling=0.2)
    q, k_pool, v_pool, slots = args
    alone = decode_attention(q[1:2], k_pool, v_pool, slots[260:300], [40], scaling=0.2)
    assert torch.equal(together[1:2], alone)

    args = make(30, [50])
    q, k_pool, v_pool, slots = args
    whole = extend_attention(*args, [50], [30], scaling=0.2)
    first = extend_attention(q[:11], k_pool, v_pool, slots[:31], [31], [11], scaling=0.2)
    last = extend_attention(q[11:], k_pool, v_pool, slots, [50], [19], scaling=0.2)
    torch.testing.assert_close(whole, torch.cat([first, last]), atol=1e-6, rtol=0)


def test_queries_may_be_a_view_of_the_joined_projection(make, exact_attention):
    q, k_pool, v_pool, slots = make(20, [50])
    joined = torch.randn(20, 10, 64, generator=torch.Generator().manual_seed(3)).to(q.device)
    view = joined[:, :6].transpose(0, 1).unsqueeze(0)[0].transpose(0, 1)
    assert not view.is_contiguous()
    out = extend_attention(view, k_pool, v_pool, slots, [50], [20], scaling=0.2)
    close(out, exact_attention(view, k_pool, v_pool, slots, [50], [20], scaling=0.2))


def test_a_mixed_batch_with_two_groups_of_siblings_takes_all_three_kernels(make, exact_attention, monkeypatch):
    monkeypatch.setenv("TREECHAT_SHARED_PREFIX", "always")
    kv_lens, q_lens = [SPLIT_LEN + 5, 20, SPLIT_LEN + 9, 60], [1, 1, 1, 7]
    q, k_pool, v_pool, slots = make(10, kv_lens)
    # The third path begins with the slots of the first.
    start = kv_lens[0] + kv_lens[1]
    slots[start : start + SPLIT_LEN] = slots[:SPLIT_LEN]
    layout = Layout.build(kv_lens, q_lens, q.device, [([0, 2], SPLIT_LEN + 3)])
    assert [group.prefix_len for group in layout.shared] == [SPLIT_LEN] and layout.unshared.indices.tolist() == [1]
    out = attend_with_triton(q, k_pool, v_pool, slots, layout, scaling=0.2)
    close(out, exact_attention(q, k_pool, v_pool, slots, kv_lens, q_lens, scaling=0.2))


def test_siblings_are_found_by_their_slots_however_their_extents_are_cut():
    runs = [[(10, 300), (900, 5)], [(500, 9)], [(10, 100), (110, 150), (700, 50)], [(10, 200)], [(10, 400)]]
    assert shared_prefixes(runs, [305, 9, 300, 200, 40], [1, 1, 1, 20, 1]) == [([0, 2, 4], 40)]
    assert shared_prefixes(runs[:3], [305, 9, 300], [1, 1, 1]) == [([0, 2], 250)]
    assert shared_prefixes(runs[:2], [305, 9], [1, 1]) == []
