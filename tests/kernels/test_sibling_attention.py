"""Siblings that read a shared stretch together get the same attention as each alone."""

from __future__ import annotations

import pytest
import torch

from treechat_kernels.attention_reference import decode_attention
from treechat_kernels.cpu.path_attention import clip_extents, slot_tensor
from treechat_kernels.cpu.sibling_attention import plan_siblings, sibling_attention

NUM_SLOTS = 1600
PREFIX = (0, 400)
# The extents of each path: the shared ones, then its own.
CASES = {
    "five siblings": [[PREFIX, (500 + 20 * i, 1 + i)] for i in range(5)],
    "a prefix in several extents": [[(0, 100), (150, 3), (160, 5), (170, 90), (700 + 9 * i, 9)] for i in range(3)],
    "forks below a fork": [
        [PREFIX, (600, 80), (700, 2)],
        [PREFIX, (600, 80), (710, 4)],
        [PREFIX, (720, 1)],
        [(1000, 30)],
    ],
    "a short stretch, then a fork": [
        [(0, 10), (100, 90), (300, 1)],
        [(0, 10), (100, 90), (310, 2)],
        [(0, 10), (400, 120), (600, 1)],
        [(0, 10), (400, 120), (610, 1)],
    ],
    "long ends": [[PREFIX, (500, 150)], [PREFIX, (700, 300)], [PREFIX, (1100, 7)]],
    "one is the beginning of another": [[(0, 300)], [(0, 301)], [(0, 330)]],
    "odd lengths": [[(3, 401), (500, 1)], [(3, 401), (510, 1)]],
}


@pytest.mark.parametrize("num_heads", [(6, 2), (9, 3)])
@pytest.mark.parametrize("with_sinks", [False, True])
@pytest.mark.parametrize("head_major", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_each_path_gets_the_same_attention_as_alone(case, head_major, with_sinks, num_heads):
    extents = CASES[case]
    kv_lens = [sum(length for _, length in path) for path in extents]
    generator = torch.Generator().manual_seed(0)
    num_q_heads, num_kv_heads = num_heads
    q = torch.randn(len(extents), num_q_heads, 16, generator=generator)
    pools = [torch.randn(NUM_SLOTS, num_kv_heads, 16, generator=generator) for _ in range(2)]
    slots = torch.cat([slot_tensor(path) for path in extents])
    for pool in pools:
        unused = torch.ones(NUM_SLOTS, dtype=torch.bool)
        unused[slots] = False
        pool[unused] = float("nan")
    sinks = torch.randn(num_q_heads, generator=generator) if with_sinks else None
    expected = decode_attention(q, *pools, slots, kv_lens, scaling=0.25, sinks=sinks)
    if head_major:
        pools = [pool.transpose(0, 1).contiguous().transpose(0, 1) for pool in pools]
    torch.set_num_threads(2 if num_kv_heads == 3 else 1)
    try:
        plan = plan_siblings(extents, kv_lens, num_kv_heads)
    finally:
        torch.set_num_threads(1)
    assert plan is not None
    out = sibling_attention(q, *pools, plan, scaling=0.25, sinks=sinks)
    assert (out - expected).abs().max() < 1e-5


def test_the_shared_stretch_is_read_once_for_all():
    extents = CASES["five siblings"]
    plan = plan_siblings(extents, [sum(length for _, length in path) for path in extents], 2)
    assert plan is not None
    assert [(part.view, part.rows.tolist()) for part in plan.parts] == [(PREFIX, [0, 1, 2, 3, 4])]
    assert plan.tails.shape == (5, 5)


def test_paths_that_share_too_little_have_no_plan():
    assert plan_siblings([[(0, 40), (100, 50)], [(0, 40), (200, 50)]], [90, 90], 2) is None
    assert plan_siblings([[(0, 300)], [(400, 300)]], [300, 300], 2) is None


def test_slots_after_the_end_of_a_path_are_not_read():
    extents = [[(0, 900)], [(0, 200), (1000, 50)]]
    plan = plan_siblings(extents, [210, 205], 2)
    assert plan is not None
    used = torch.cat([slot_tensor(clip_extents(path, 0, n)) for path, n in zip(extents, (210, 205), strict=True)])
    assert set(plan.tails.flatten().tolist()) <= set(used.tolist())
