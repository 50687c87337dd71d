"""The compiled kernels on a CUDA device, with lengths and batches that are too slow to interpret, and every kernel."""

from __future__ import annotations

import pytest
import torch

from treechat_kernels import dispatch, reference
from treechat_kernels.layout import SPLIT_LEN, Layout

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="needs a CUDA device: run `make gpu` on a machine with one"
    ),
]
NUM_SLOTS = 20_000
TOLERANCE = {torch.float32: 5e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("heads", "dim", "v_dim"),
    [
        ((9, 3), 64, 64),
        ((8, 8), 80, 80),
        ((14, 2), 112, 112),
        ((32, 8), 128, 128),
        ((8, 4), 192, 128),
        ((8, 4), 256, 256),
    ],
)
@pytest.mark.parametrize("options", [{}, {"sliding_window": 300, "softcap": 20.0, "sinks": True}], ids=["plain", "all"])
def test_a_long_ragged_batch_of_prompts_and_replies(exact_attention, heads, dim, v_dim, dtype, options):
    kv_lens, q_lens = [4097, 1, 700, 129, 2 * SPLIT_LEN, 3000], [1, 1, 513, 17, 1, 64]
    torch.manual_seed(0)
    slots = torch.randperm(NUM_SLOTS)[: sum(kv_lens)].cuda()
    q = torch.randn(sum(q_lens), heads[0], dim, device="cuda").to(dtype)
    pools = [torch.full((NUM_SLOTS, heads[1], d), float("nan"), dtype=dtype, device="cuda") for d in (dim, v_dim)]
    for pool in pools:
        pool[slots] = torch.randn(len(slots), *pool.shape[1:], device="cuda").to(dtype)
    if options:
        options = {**options, "sinks": torch.linspace(-1, 2, heads[0], device="cuda").to(dtype)}
    layout = Layout.build(kv_lens, q_lens, "cuda")
    out = dispatch.attend(q, *pools, slots, layout, scaling=dim**-0.5, **options)
    expected = exact_attention(q, *pools, slots, kv_lens, q_lens, scaling=dim**-0.5, **options)
    torch.testing.assert_close(out.double(), expected, atol=TOLERANCE[dtype], rtol=0)


def test_siblings_that_share_a_long_prefix_read_it_once(exact_attention, monkeypatch):
    monkeypatch.setenv("TREECHAT_SHARED_PREFIX", "always")
    torch.manual_seed(0)
    kv_lens, shared = [3000 + 41 * i for i in range(16)], 2900
    order = torch.randperm(NUM_SLOTS)
    prefix, order = order[:shared], order[shared:]
    slots = torch.cat([part for i, n in enumerate(kv_lens) for part in (prefix, order[i * 800 :][: n - shared])]).cuda()
    q = torch.randn(16, 9, 64, device="cuda", dtype=torch.bfloat16)
    pools = [torch.randn(NUM_SLOTS, 3, 64, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
    alone = Layout.build(kv_lens, [1] * 16, "cuda")
    together = Layout.build(kv_lens, [1] * 16, "cuda", [(list(range(16)), shared)])
    outs = [dispatch.attend(q, *pools, slots, layout, scaling=0.125) for layout in (alone, together)]
    torch.testing.assert_close(outs[0], outs[1], atol=1e-2, rtol=0)
    expected = exact_attention(q, *pools, slots, kv_lens, [1] * 16, scaling=0.125)
    torch.testing.assert_close(outs[1].double(), expected, atol=3e-2, rtol=0)


def test_slots_beyond_two_gigabytes_are_addressed():
    if torch.cuda.mem_get_info()[0] < 12 << 30:
        pytest.skip("needs 12 GB of free device memory")
    num_slots = (1 << 31) // 1024 + 64
    pools = [torch.empty(num_slots, 8, 128, dtype=torch.bfloat16, device="cuda") for _ in range(2)]
    k, v = (torch.randn(40, 8, 128, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    slots = torch.arange(num_slots - 40, num_slots, device="cuda")
    dispatch.write_kv(*pools, k, v, slots)
    assert torch.equal(pools[0][slots], k) and torch.equal(pools[1][slots], v)
    layout = Layout.build([40], [40], "cuda")
    q = torch.randn(40, 8, 128, dtype=torch.bfloat16, device="cuda")
    out = dispatch.attend(q, *pools, slots, layout, scaling=0.1)
    near = dispatch.attend(q, k, v, torch.arange(40, device="cuda"), layout, scaling=0.1)
    assert torch.equal(out, near)
    assert torch.equal(dispatch.gather_slots(pools, slots), torch.stack([k, v]))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_small_kernels_equal_their_references(dtype):
    torch.manual_seed(0)
    x, weight = torch.randn(33, 4096, device="cuda").to(dtype), torch.randn(4096, device="cuda").to(dtype)
    tolerance = {"atol": TOLERANCE[dtype], "rtol": TOLERANCE[dtype]}
    for got, expected in zip(
        dispatch.rms_norm(x, weight, 1e-5, residual=x), reference.rms_norm(x, weight, 1e-5, residual=x), strict=True
    ):
        torch.testing.assert_close(got, expected, **tolerance)
    heads, table = x.view(33, 32, 128), torch.randn(2, 33, 128, device="cuda")
    torch.testing.assert_close(dispatch.rotary(heads, *table), reference.rotary(heads, *table), **tolerance)
    for activation in ("silu", "gelu", "gelu_tanh"):
        torch.testing.assert_close(dispatch.silu_mul(x, activation), reference.silu_mul(x, activation), **tolerance)
    token, logprob = dispatch.pick(x)
    expected, expected_logprob = reference.pick(x)
    assert torch.equal(token, expected)
    torch.testing.assert_close(logprob, expected_logprob, atol=1e-4, rtol=0)
