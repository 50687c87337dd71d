"""KVCache, one situation per test: what leases find, share, allocate, release and evict."""

from __future__ import annotations

import pytest

from tests.engine.kvcache.cache_rows import kv_of, make_cache, read, run, write
from treechat_engine.kvcache.slots import extents_of


def test_the_last_token_of_a_prompt_is_never_taken_from_the_cache() -> None:
    cache = make_cache(32)
    cache.release(run(cache, [1, 2, 3]))
    assert cache.lease([1, 2, 3]).cached_len == 2
    assert cache.lease([1, 2, 3, 4]).cached_len == 3
    assert cache.lease([1]).cached_len == 0
    cache.check()


def test_the_second_of_two_equal_prefills_reads_the_slots_of_the_first() -> None:
    cache = make_cache(32)
    ids = [1, 2, 3, 4, 5]
    first, second = cache.lease(ids), cache.lease(ids)
    for lease in (first, second):
        assert cache.grow(lease, 5)
        write(cache, lease, ids, 0)
    mine = second.slots.tolist()
    cache.commit(first, ids[:3])
    cache.commit(second, ids)
    assert second.slots[:3] == first.slots[:3] and second.slots[3:].tolist() == mine[3:]
    assert second.version == 1 and second.extents == extents_of(second.slots)
    assert cache.pool.k[0][mine[:3]].isnan().all()
    assert (cache.num_cached, cache.num_free) == (5, 32 - 5 - 2)
    cache.check()
    cache.commit(first, ids)
    assert first.slots == second.slots
    assert read(cache, first, 5) == read(cache, second, 5) == kv_of(ids)
    cache.check()


def test_siblings_keep_one_copy_of_their_prefix() -> None:
    cache = make_cache(64)
    prefix = list(range(20))
    cache.release(run(cache, prefix))
    leases = [cache.lease([*prefix, 100 + i]) for i in range(4)]
    assert len({tuple(lease.slots) for lease in leases}) == 1
    for i, lease in enumerate(leases):
        assert cache.grow(lease, 1)
        write(cache, lease, [*prefix, 100 + i], 20)
    assert cache.num_slots - cache.num_free == 20 + 4
    cache.check()


def test_a_release_without_commit_frees_the_private_slots_and_a_second_one_does_nothing() -> None:
    cache = make_cache(16)
    lease = cache.lease([1, 2, 3])
    assert cache.grow(lease, 3)
    cache.release(lease)
    cache.release(lease)
    assert (cache.num_free, cache.num_cached, len(lease.slots), lease.extents) == (16, 0, 0, [])
    cache.check()


def test_growing_evicts_unleased_slots_and_changes_nothing_if_they_are_too_few() -> None:
    cache = make_cache(10)
    cache.release(run(cache, [1, 2, 3, 4]))
    held = run(cache, [5, 6, 7, 8])
    lease = cache.lease([9] * 7)
    assert not cache.grow(lease, 7)
    assert (cache.num_free, cache.evicted_tokens, len(lease.slots)) == (2, 0, 0)
    assert cache.grow(lease, 6)
    assert (cache.num_free, cache.evicted_tokens) == (0, 4)
    assert read(cache, held, 4) == kv_of([5, 6, 7, 8])
    cache.check()


def test_branches_that_grow_alternately_each_stay_in_one_extent_after_their_trunk() -> None:
    cache = make_cache(1024)
    trunk = [1] * 40
    cache.release(run(cache, trunk))
    paths = [[*trunk, branch] for branch in range(3)]
    for _ in range(3):
        for i, path in enumerate(paths):
            paths[i] = [*path, *range(20)]
            lease = run(cache, paths[i])
            assert len(lease.extents) <= 2
            cache.release(lease)
    cache.check()


def test_decoding_under_pressure_takes_evicted_slots_in_extents() -> None:
    cache = make_cache(512)
    for branch in range(4):
        cache.release(run(cache, [branch] * 120))
    ids = [9] * 20
    lease = run(cache, ids)
    for _ in range(100):
        assert cache.grow(lease, 1)
    assert len(lease.slots) == 120 and len(lease.extents) <= 10
    cache.check()


def test_a_peek_counts_resident_tokens_and_keeps_the_eviction_order() -> None:
    cache = make_cache(32)
    cache.release(run(cache, [1, 2, 3]))
    cache.release(run(cache, [4, 5, 6]))
    residency = cache.peek([1, 2, 3, 9])
    assert (residency.resident, residency.host, residency.cold) == (3, 0, 1)
    cache.evict(3)
    assert (cache.peek([1, 2, 3]).resident, cache.peek([4, 5, 6]).resident) == (0, 3)


def test_clearing_keeps_leased_slots() -> None:
    cache = make_cache(32)
    cache.release(run(cache, [1, 2, 3]))
    lease = run(cache, [1, 2, 4])
    cache.clear()
    assert cache.peek([1, 2, 3]).resident == 2
    assert read(cache, lease, 3) == kv_of([1, 2, 4])


def test_check_finds_a_lost_slot() -> None:
    cache = make_cache(8)
    cache.pool.allocate(1)
    with pytest.raises(AssertionError, match="7 slots accounted for, 8 in all"):
        cache.check()
