"""The host tier: evicted KV is restored bit for bit, or computed again if that is faster."""

from __future__ import annotations

from array import array

import pytest
import torch

from treechat_engine import SamplingParams
from treechat_engine.kvcache import host as host_module
from treechat_engine.kvcache.cache import KVCache
from treechat_engine.kvcache.host import HostPool, PoolRows
from treechat_engine.kvcache.slots import SlotPool
from treechat_engine.startup.restore_cost import CostModel

SHAPES = [(2, 3, 4), (1, 5, 5)]


def filled_pool(num_slots: int = 32) -> SlotPool:
    pool = SlotPool(num_slots, SHAPES, torch.float32, "cpu")
    for layer, rows in enumerate((*pool.k, *pool.v)):
        rows.copy_(torch.arange(rows.numel(), dtype=torch.float32).view(rows.shape) + 1000 * layer)
    return pool


@pytest.mark.parametrize("block_bytes", [host_module.BLOCK_BYTES, 300], ids=["one block", "three rows at a time"])
@pytest.mark.parametrize("slots", [range(4, 12), range(0, 32, 2), [7]])
def test_rows_go_to_the_host_and_back_into_other_slots_unchanged(slots, block_bytes, monkeypatch) -> None:
    monkeypatch.setattr(host_module, "BLOCK_BYTES", block_bytes)
    pool, taken = filled_pool(), array("q", slots)
    rows = PoolRows(pool)
    assert rows.width == 2 * (3 + 4) + 10
    host = HostPool(rows, 40, poison=True)
    host_slots = host.allocate(len(taken))
    host.store(taken, host_slots)
    before = [layer[taken.tolist()].clone() for layer in (*pool.k, *pool.v)]
    for layer in (*pool.k, *pool.v):
        layer.fill_(-1.0)
    target = array("q", [31 - i for i in range(len(taken))])
    host.load(host_slots, target)
    for layer, expected in zip((*pool.k, *pool.v), before, strict=True):
        assert layer[target.tolist()].equal(expected)
        assert (layer == -1.0).sum() == (33 - len(taken)) * layer[0].numel()
    host.free(host_slots)
    host.check()
    assert host.num_free == 40


def test_one_launch_for_all_layers_moves_the_same_rows_as_a_copy_for_each() -> None:
    shapes = [(2, 3, 3)] * 2
    pool, other = (SlotPool(16, shapes, torch.float32, "cpu") for _ in range(2))
    for layer, rows in enumerate((*pool.k, *pool.v)):
        rows.copy_(torch.arange(rows.numel(), dtype=torch.float32).view(rows.shape) + 1000 * layer)
    by_layer, at_once, target = PoolRows(pool), PoolRows(pool), PoolRows(other)
    at_once.is_one_launch = target.is_one_launch = True
    slots = array("q", [3, 4, 5, 9, 1])
    assert by_layer.gather(slots).equal(at_once.gather(slots))
    target.scatter(slots, by_layer.gather(slots))
    for mine, theirs in zip((*pool.k, *pool.v), (*other.k, *other.v), strict=True):
        assert mine[slots.tolist()].equal(theirs[slots.tolist()])


def test_the_check_of_the_host_pool_finds_a_written_free_row() -> None:
    host = HostPool(PoolRows(filled_pool()), 8, poison=True)
    host.rows[3].zero_()
    with pytest.raises(AssertionError, match="was written"):
        host.check()


def cache_of(num_slots: int, host_slots: int) -> KVCache:
    return KVCache(SlotPool(num_slots, [(1, 1, 1)], torch.float32, "cpu", poison=True), host_slots=host_slots)


def put(cache: KVCache, ids: list[int]) -> None:
    lease = cache.lease(ids)
    assert cache.grow(lease, len(ids) - lease.cached_len)
    for layer in (cache.pool.k[0], cache.pool.v[0]):
        layer[lease.slots[lease.cached_len :].tolist()] = torch.tensor(ids[lease.cached_len :]).float().view(-1, 1, 1)
    cache.commit(lease, ids)
    cache.release(lease)


def test_evicted_kv_is_on_the_host_until_that_is_full_and_then_nowhere() -> None:
    cache = cache_of(10, 10)
    paths = [list(range(start, start + 8)) for start in (100, 200, 300)]
    for path in paths:
        put(cache, path)
        cache.check()
    where = [cache.peek(path) for path in paths]
    assert [(each.resident, each.host, each.cold) for each in where] == [(0, 4, 4), (2, 6, 0), (8, 0, 0)]


def test_a_lease_brings_its_prefix_back_from_the_host_and_counts_it() -> None:
    cache = cache_of(16, 16)
    path = list(range(8))
    put(cache, path)
    cache.evict(16)
    assert (cache.num_cached, cache.num_on_host) == (0, 8)
    lease = cache.lease([*path, 99])
    assert (lease.cached_len, lease.restored_len, cache.num_on_host) == (8, 8, 0)
    assert cache.pool.k[0][lease.slots.tolist()].flatten().tolist() == path
    cache.check()


def test_kv_computed_while_it_is_on_the_host_replaces_the_hosts_copy() -> None:
    cache = KVCache(
        SlotPool(16, [(1, 1, 1)], torch.float32, "cpu", poison=True),
        host_slots=16,
        should_restore=lambda _host, _disk: False,
    )
    put(cache, [1, 2, 3, 4])
    cache.evict(16)
    put(cache, [1, 2, 3, 4, 5])
    assert (cache.num_cached, cache.num_on_host, cache.restored_tokens) == (5, 0, 0)
    cache.check()


def test_of_a_leaf_longer_than_the_host_its_beginning_is_kept() -> None:
    cache = cache_of(16, 5)
    put(cache, list(range(12)))
    cache.evict(16)
    assert cache.peek(list(range(12))).host == 5
    cache.check()


def test_a_dropped_trunk_takes_its_branches_on_the_host_with_it() -> None:
    cache = cache_of(16, 4)
    put(cache, [1, 2, 3, 4])
    put(cache, [1, 2, 3, 4, 5, 6, 7, 8])
    cache.evict(4)
    assert cache.peek([1, 2, 3, 4, 5, 6, 7, 8]).host == 4
    cache.evict(4)
    cache.check()
    assert cache.peek([1, 2, 3, 4]).host == 4


def test_kv_is_restored_only_if_copying_is_faster_than_computing() -> None:
    costs = CostModel(token_bytes=4000)
    assert costs.should_restore(1, 1)
    costs.host_fixed_s, costs.host_s = 1e-3, 1e-6
    costs.observe_compute(10_000.0)
    assert not costs.should_restore(5, 0)
    assert costs.should_restore(20, 0)
    costs.disk_s = 2e-4
    assert not costs.should_restore(0, 20)


def test_an_engine_restores_from_its_host_tier_and_replies_the_same(engines, greedy, prompt) -> None:
    engine = engines(kv_tokens=80, host_tokens=200, prefill_chunk=16)
    costs = engine.cache.should_restore.__self__
    assert costs.compute_s > 0 and costs.host_s >= 0
    engine.cache.should_restore = None
    first, second = prompt(50), prompt(50, seed=1)
    params = SamplingParams(max_tokens=6)
    replies = [engine.generate([ids], params)[0] for ids in (first, second, first, second)]
    for ids, reply in zip((first, second, first, second), replies, strict=True):
        assert list(reply.token_ids) == greedy("llama", ids, 6)
    usage = replies[2].usage
    assert usage.restored_tokens > 0
    assert usage.cached_tokens + usage.restored_tokens + usage.computed_tokens == 50
    assert usage.computed_tokens < 50
    stats = engine.stats()
    assert (stats.host_total, stats.restored_tokens) == (200, usage.restored_tokens + replies[3].usage.restored_tokens)
    assert engine.residency(first).total == 50
