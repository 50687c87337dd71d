"""Freeing one branch: its slots are freed, slots shared with other paths stay, and no slot is lost."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from treechat_engine import SamplingParams
from treechat_engine.kvcache.cache import KVCache
from treechat_engine.kvcache.radix import RadixTree
from treechat_engine.kvcache.radix_node import DEVICE
from treechat_engine.kvcache.slots import SlotPool

PATHS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=8)


def cached(tree: RadixTree, paths: list[list[int]]) -> set[tuple[int, ...]]:
    return {tuple(path[: n + 1]) for path in paths for n in range(tree.peek(path))}


@given(PATHS, st.lists(st.integers(0, 2), max_size=9), st.integers(0, 9))
def test_only_slots_on_the_path_or_below_it_are_freed(paths, ids, start):
    tree = RadixTree()
    num_slots = 0
    for path in paths:
        tree.insert(path, range(num_slots, num_slots + len(path)))
        num_slots += len(path)
    before = cached(tree, paths)
    way = [tuple(ids[:n]) for n in range(1, len(ids) + 1)]
    others = [path for path in before if path not in way and path[: len(ids)] != tuple(ids)]
    kept = {path[:n] for path in others for n in range(len(path) + 1)} | {tuple(ids[:n]) for n in range(start + 1)}
    expected = {path for path in before if path in kept or (path not in way and path[: len(ids)] != tuple(ids))}
    if start >= len(ids) or tuple(ids[:start]) not in before | {()}:
        expected = before
    freed = tree.free(ids, start)
    assert cached(tree, paths) == expected
    assert len(freed[DEVICE]) == len(before) - len(expected) == len(set(freed[DEVICE]))
    tree.check()


def test_leased_slots_stay_and_no_slot_is_lost():
    cache = KVCache(SlotPool(40, [(1, 1, 1)], torch.float32, "cpu", poison=True), host_slots=16)
    for path in ([1, 2, 3, 4, 5], [1, 2, 3, 8, 9], [1, 2, 7]):
        lease = cache.lease(path)
        cache.grow(lease, len(path) - lease.cached_len)
        cache.commit(lease, path)
        cache.release(lease)
    held = cache.lease([1, 2, 3, 8, 9, 9])
    assert cache.free([1, 2, 3], 2) == 2
    assert [cache.peek(path).resident for path in ([1, 2, 3, 4], [1, 2, 3, 8, 9], [1, 2, 7])] == [3, 5, 3]
    cache.release(held)
    cache.evict(2)
    assert cache.num_on_host == 2
    cache.free([1, 2, 3], 2)
    cache.free([1, 2, 7], 2)
    assert (cache.num_cached, cache.num_on_host) == (2, 0)
    cache.check()


def test_a_freed_branch_is_computed_again_to_the_same_tokens(engines, greedy, prompt):
    engine = engines(kv_tokens=120)
    ids, params = prompt(40), SamplingParams(max_tokens=4, ignore_eos=True)
    expected = engine.generate([ids], params)[0].token_ids
    other = [*ids[:20], *prompt(20, seed=3)]
    engine.generate([other], params)
    engine.free(ids, 10)
    assert engine.residency(ids).resident == 20
    assert engine.residency(other).resident == 40
    again = engine.generate([ids], params)[0]
    assert again.token_ids == expected and again.usage.computed_tokens == 20
