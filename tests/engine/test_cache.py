"""KVCache: a lease reads what was computed for exactly its prefix, whoever computed, evicted or freed before."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from treechat_engine.cache import KVCache, Lease
from treechat_engine.keeping import load_kv, save_kv
from treechat_engine.slots import SlotPool, runs_of


def make_cache(num_slots: int, **options: Any) -> KVCache:
    return KVCache(SlotPool(num_slots, [(1, 1, 1)], torch.float32, "cpu", poison=True), **options)


def kv_of(ids: list[int]) -> list[float]:
    """The KV that each position of a path must hold: a value of the whole prefix, exact in float32."""
    return [float(hash(tuple(ids[: n + 1])) % 1_000_003) for n in range(len(ids))]


def write(cache: KVCache, lease: Lease, ids: list[int], start: int) -> None:
    """Compute ids[start:] as a forward would: into the lease's slots, each from its prefix."""
    rows = torch.tensor(kv_of(ids)[start:]).view(-1, 1, 1)
    cache.pool.k[0][lease.slots[start : len(ids)]] = rows
    cache.pool.v[0][lease.slots[start : len(ids)]] = -rows


def read(cache: KVCache, lease: Lease, length: int) -> list[float]:
    """The first `length` rows by the lease's runs, as attention on the CPU reads them."""
    keys = torch.cat([cache.pool.k[0][start : start + n] for start, n in lease.runs] or [torch.empty(0, 1, 1)])
    values = cache.pool.v[0][lease.slots[:length]]
    assert keys[:length].equal(-values)
    return keys[:length].flatten().tolist()


def run(cache: KVCache, ids: list[int]) -> Lease:
    """Lease, compute and commit all of `ids`."""
    lease = cache.lease(ids)
    assert cache.grow(lease, len(ids) - lease.cached_len)
    write(cache, lease, ids, lease.cached_len)
    cache.commit(lease, ids)
    return lease


class Request:
    """A running request: its path so far, how much of it is computed, its lease."""

    def __init__(self, cache: KVCache, ids: list[int]) -> None:
        self.ids = ids
        self.lease = cache.lease(ids)
        self.num_computed = self.lease.cached_len


class CacheAgainstPrefixes(RuleBasedStateMachine):
    """Requests of a small alphabet in a small pool: they share, duplicate, run out of slots, stop at any point."""

    num_slots, num_host_slots = 40, 0

    def __init__(self) -> None:
        super().__init__()
        self.cache = make_cache(self.num_slots, host_slots=self.num_host_slots, pays=lambda _host, _disk: self.restores)
        self.restores = True
        self.requests: list[Request] = []

    def pick(self, data: st.DataObject) -> Request:
        return self.requests[data.draw(st.integers(0, len(self.requests) - 1))]

    @precondition(lambda self: len(self.requests) < 5)
    @rule(ids=st.lists(st.integers(0, 1), min_size=1, max_size=14))
    def start(self, ids: list[int]) -> None:
        before, available = self.cache.peek(ids), self.cache.num_available
        request = Request(self.cache, ids)
        self.requests.append(request)
        found = min(before.resident, len(ids) - 1)
        on_host = min(before.resident + before.host, len(ids) - 1) - found
        assert found <= request.lease.cached_len <= found + on_host
        if not self.restores:
            assert request.lease.cached_len == found
        elif available - found >= on_host:
            assert request.lease.cached_len == found + on_host
        assert request.lease.restored_len == request.lease.cached_len - found

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), n=st.integers(1, 8), commits=st.booleans())
    def prefill(self, data: st.DataObject, n: int, commits: bool) -> None:
        request = self.pick(data)
        end = min(len(request.ids), request.num_computed + n)
        self.compute(request, end)
        if commits:
            self.commit(request)

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), token=st.integers(0, 1))
    def decode(self, data: st.DataObject, token: int) -> None:
        request = self.pick(data)
        if request.num_computed == len(request.ids):
            request.ids = [*request.ids, token]
            self.compute(request, len(request.ids))

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), commits=st.booleans())
    def stop(self, data: st.DataObject, commits: bool) -> None:
        request = self.pick(data)
        if commits:
            self.commit(request)
        self.requests.remove(request)
        self.cache.release(request.lease)
        self.cache.release(request.lease)

    @rule(n=st.integers(1, 10))
    def evict(self, n: int) -> None:
        evictable, evicted = self.cache.num_available - self.cache.num_free, self.cache.evicted_tokens
        assert self.cache.evict(n) == min(n, evictable)
        assert self.cache.evicted_tokens - evicted == min(n, evictable)

    @rule(restores=st.booleans())
    def find_that_restoring_pays_or_not(self, restores: bool) -> None:
        self.restores = restores

    @rule(paths=st.lists(st.lists(st.integers(0, 1), max_size=8), max_size=3))
    def protect(self, paths: list[list[int]]) -> None:
        self.cache.protect(paths)

    def compute(self, request: Request, end: int) -> None:
        lease, cache = request.lease, self.cache
        missing = end - len(lease.slots)
        before = (cache.num_available, cache.num_free, cache.num_cached, list(lease.slots))
        if not cache.grow(lease, max(0, missing)):
            assert missing > before[0]
            assert before == (cache.num_available, cache.num_free, cache.num_cached, lease.slots.tolist())
            return
        write(cache, lease, request.ids[:end], request.num_computed)
        request.num_computed = end

    def commit(self, request: Request) -> None:
        lease, done = request.lease, request.ids[: request.num_computed]
        old, version = lease.slots.tolist(), lease.version
        self.cache.commit(lease, done)
        assert lease.committed_len == request.num_computed
        assert (lease.version != version) == (old != lease.slots.tolist())
        assert self.cache.peek(done).resident == len(done)

    @invariant()
    def every_lease_reads_its_own_prefix(self) -> None:
        self.cache.check()
        for request in self.requests:
            expected = kv_of(request.ids[: request.num_computed])
            assert read(self.cache, request.lease, request.num_computed) == expected

    def teardown(self) -> None:
        for request in self.requests:
            self.cache.release(request.lease)
        assert self.cache.tree.num_evictable == self.cache.num_cached
        self.cache.clear()
        self.cache.check()
        assert self.cache.num_free == self.cache.num_slots
        assert self.cache.num_on_host == 0


class HostTierAgainstPrefixes(CacheAgainstPrefixes):
    """The same with a host tier too small for all: what comes back is what went, freed rows are poisoned in both."""

    num_slots, num_host_slots = 24, 24

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()

    @rule(ids=st.lists(st.integers(0, 1), min_size=6, max_size=14), n=st.integers(4, 24))
    def run_and_evict(self, ids: list[int], n: int) -> None:
        self.start(ids)
        request = self.requests.pop()
        self.compute(request, len(ids))
        self.commit(request)
        self.cache.release(request.lease)
        self.evict(n)

    @precondition(lambda self: not self.requests)
    @rule(share=st.sampled_from([0.5, 1.0]))
    def restart(self, share: float) -> None:
        """What a cache leaves on disk is all that the next one starts with."""
        total, directory = self.cache.tree.num_in_all, Path(self.directory.name)
        kept = save_kv(self.cache, nullcontext(), directory, "model", int(share * total) * 8)
        self.cache.check()
        self.cache = make_cache(self.num_slots, host_slots=self.num_host_slots, pays=lambda _host, _disk: self.restores)
        assert load_kv(self.cache, nullcontext(), directory, "model").notes == []
        assert self.cache.tree.num_in_all == kept.num_tokens == int(share * total)

    def teardown(self) -> None:
        super().teardown()
        self.directory.cleanup()


CacheAgainstPrefixes.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
HostTierAgainstPrefixes.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestCacheAgainstPrefixes = CacheAgainstPrefixes.TestCase
TestHostTierAgainstPrefixes = HostTierAgainstPrefixes.TestCase


def test_the_last_token_of_a_prompt_is_never_taken_from_the_cache() -> None:
    cache = make_cache(32)
    cache.release(run(cache, [1, 2, 3]))
    assert cache.lease([1, 2, 3]).cached_len == 2
    assert cache.lease([1, 2, 3, 4]).cached_len == 3
    assert cache.lease([1]).cached_len == 0
    cache.check()


def test_of_two_that_computed_the_same_the_second_reads_the_slots_of_the_first() -> None:
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
    assert second.version == 1 and second.runs == runs_of(second.slots)
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
    assert (cache.num_free, cache.num_cached, len(lease.slots), lease.runs) == (16, 0, 0, [])
    cache.check()


def test_growing_evicts_what_no_lease_holds_and_fails_whole_where_that_is_not_enough() -> None:
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


def test_branches_that_take_turns_each_stay_in_one_run_behind_their_trunk() -> None:
    cache = make_cache(1024)
    trunk = [1] * 40
    cache.release(run(cache, trunk))
    paths = [[*trunk, branch] for branch in range(3)]
    for _ in range(3):
        for i, path in enumerate(paths):
            paths[i] = [*path, *range(20)]
            lease = run(cache, paths[i])
            assert len(lease.runs) <= 2
            cache.release(lease)
    cache.check()


def test_decoding_under_pressure_takes_evicted_slots_in_runs() -> None:
    cache = make_cache(512)
    for branch in range(4):
        cache.release(run(cache, [branch] * 120))
    ids = [9] * 20
    lease = run(cache, ids)
    for _ in range(100):
        assert cache.grow(lease, 1)
    assert len(lease.slots) == 120 and len(lease.runs) <= 10
    cache.check()


def test_a_peek_tells_what_is_resident_and_leaves_the_eviction_order_alone() -> None:
    cache = make_cache(32)
    cache.release(run(cache, [1, 2, 3]))
    cache.release(run(cache, [4, 5, 6]))
    residency = cache.peek([1, 2, 3, 9])
    assert (residency.resident, residency.host, residency.cold) == (3, 0, 1)
    cache.evict(3)
    assert (cache.peek([1, 2, 3]).resident, cache.peek([4, 5, 6]).resident) == (0, 3)


def test_clearing_keeps_what_a_lease_holds() -> None:
    cache = make_cache(32)
    cache.release(run(cache, [1, 2, 3]))
    lease = run(cache, [1, 2, 4])
    cache.clear()
    assert cache.peek([1, 2, 3]).resident == 2
    assert read(cache, lease, 3) == kv_of([1, 2, 4])


def test_check_notices_a_slot_that_went_missing() -> None:
    cache = make_cache(8)
    cache.pool.allocate(1)
    with pytest.raises(AssertionError, match="7 slots accounted for, 8 in all"):
        cache.check()
