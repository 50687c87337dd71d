"""The references agree with the definition of attention, and the CPU kernel with the reference."""

from __future__ import annotations

import pytest
import torch

from treechat_kernels.attention_reference import decode_attention, extend_attention
from treechat_kernels.cpu.path_attention import (
    MIN_VIEW_LEN,
    PathReads,
    clip_extents,
    path_attention,
    plan_reads,
    slot_tensor,
)

NUM_SLOTS = 700


def make(q_len, num_q_heads=6, num_kv_heads=2, dim=16, v_dim=None, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)

    def rand(*shape):
        return torch.randn(*shape, generator=generator).to(dtype)

    return (
        rand(q_len, num_q_heads, dim),
        rand(NUM_SLOTS, num_kv_heads, dim),
        rand(NUM_SLOTS, num_kv_heads, v_dim or dim),
    )


def by_definition(q, k, v, scaling, sliding_window, softcap, sinks):
    """Return attention in float64, one query token and head at a time."""
    q, k, v = q.double(), k.double(), v.double()
    out = torch.zeros(q.shape[0], q.shape[1], v.shape[2], dtype=torch.float64)
    group = q.shape[1] // k.shape[1]
    for i in range(q.shape[0]):
        position = k.shape[0] - q.shape[0] + i
        low = 0 if sliding_window is None else max(0, position - sliding_window + 1)
        for head in range(q.shape[1]):
            scores = k[low : position + 1, head // group] @ q[i, head] * scaling
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            weights = scores.exp()
            total = weights.sum() + (sinks[head].double().exp() if sinks is not None else 0)
            out[i, head] = (weights / total) @ v[low : position + 1, head // group]
    return out


@pytest.mark.parametrize("sliding_window", [None, 1, 5, 100])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("with_sinks", [False, True])
def test_the_reference_is_attention_by_definition_on_a_ragged_batch(sliding_window, softcap, with_sinks):
    q, k_pool, v_pool = make(5 + 1 + 3, v_dim=12)
    slots = torch.randperm(NUM_SLOTS, generator=torch.Generator().manual_seed(2))[: 20 + 7 + 3]
    sinks = torch.linspace(-1, 2, 6) if with_sinks else None
    options = {"scaling": 0.3, "sliding_window": sliding_window, "softcap": softcap, "sinks": sinks}
    out = extend_attention(q, k_pool, v_pool, slots, [20, 7, 3], [5, 1, 3], **options)
    q_start = kv_start = 0
    for kv_len, q_len in ((20, 5), (7, 1), (3, 3)):
        path = slots[kv_start : kv_start + kv_len]
        expected = by_definition(q[q_start : q_start + q_len], k_pool[path], v_pool[path], **options)
        torch.testing.assert_close(out[q_start : q_start + q_len].double(), expected, atol=2e-6, rtol=0)
        q_start, kv_start = q_start + q_len, kv_start + kv_len


def test_decoding_equals_extending_each_path_by_one_token():
    q, k_pool, v_pool = make(2)
    slots = torch.arange(12)
    out = decode_attention(q, k_pool, v_pool, slots, [5, 7], scaling=0.25)
    torch.testing.assert_close(out, extend_attention(q, k_pool, v_pool, slots, [5, 7], [1, 1], scaling=0.25))


EXTENTS = {
    "one extent": [(10, 300)],
    "two long extents": [(400, 150), (10, 150)],
    "short and long": [(5, 3), (100, 200), (20, 9), (40, 1), (400, 87)],
    "all short": [(i * 7, 3) for i in range(100)],
}


@pytest.mark.parametrize("extents", EXTENTS.values(), ids=EXTENTS.keys())
@pytest.mark.parametrize("q_len", [1, 2, 33])
@pytest.mark.parametrize("with_sinks", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_over_extents_equals_the_reference(extents, q_len, with_sinks, dtype):
    q, k_pool, v_pool = make(q_len, dtype=dtype)
    sinks = torch.linspace(-1, 2, 6) if with_sinks else None
    kv_len = sum(length for _, length in extents)
    slots = slot_tensor(extents)
    own_slots = slots[kv_len - q_len :]
    reads = plan_reads(extents, 0, kv_len if q_len == 1 else kv_len - q_len)
    fresh = [pool[own_slots].transpose(0, 1).unsqueeze(0) for pool in (k_pool, v_pool)]
    own = None if q_len == 1 else (fresh[0], fresh[1])
    out = path_attention(q.transpose(0, 1).unsqueeze(0), k_pool, v_pool, reads, own, scaling=0.25, sinks=sinks)
    expected = extend_attention(q, k_pool, v_pool, slots, [kv_len], [q_len], scaling=0.25, sinks=sinks)
    torch.testing.assert_close(out[0], expected, atol=2e-6 if dtype == torch.float32 else 1e-2, rtol=0)


def test_reads_hold_each_position_once_and_gather_only_short_extents():
    extents = EXTENTS["short and long"]
    for start, stop in ((0, 300), (2, 299), (150, 220), (7, 8)):
        reads = plan_reads(extents, start, stop)
        gathered = [] if reads.gathered is None else reads.gathered.tolist()
        viewed = [slot for first, length in reads.views for slot in range(first, first + length)]
        assert sorted(gathered + viewed) == sorted(slot_tensor(clip_extents(extents, start, stop)).tolist())
        assert not gathered or all(length >= MIN_VIEW_LEN for _, length in reads.views)


def test_a_single_short_extent_is_viewed():
    assert plan_reads([(4, 3)], 0, 3) == PathReads(((4, 3),), None)
