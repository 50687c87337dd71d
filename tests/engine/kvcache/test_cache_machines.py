"""KVCache under random operations: a lease reads KV computed for exactly its prefix, whatever ran before."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.engine.kvcache.cache_rows import kv_of, make_cache, read, write
from treechat_engine.kvcache.cache import KVCache
from treechat_engine.kvcache.saved_kv import load_kv, save_kv


class Request:
    """A running request: its path, the number of computed tokens and its lease."""

    def __init__(self, cache: KVCache, ids: list[int]) -> None:
        self.ids = ids
        self.lease = cache.lease(ids)
        self.num_computed = self.lease.cached_len


class CacheAgainstPrefixes(RuleBasedStateMachine):
    """Requests over a small alphabet in a small pool: they share, duplicate, run out of slots and stop at any point."""

    num_slots, num_host_slots = 40, 0

    def __init__(self) -> None:
        super().__init__()
        self.cache = make_cache(
            self.num_slots, host_slots=self.num_host_slots, should_restore=lambda _host, _disk: self.restores
        )
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
    """The same with a small host tier: restored rows are the evicted ones, and both pools poison freed rows."""

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
        """Replace the cache by one that starts with only the files of the old one."""
        total, directory = self.cache.tree.num_in_all, Path(self.directory.name)
        kept = save_kv(self.cache, nullcontext(), directory, "model", int(share * total) * 8)
        self.cache.check()
        self.cache = make_cache(
            self.num_slots, host_slots=self.num_host_slots, should_restore=lambda _host, _disk: self.restores
        )
        assert load_kv(self.cache, nullcontext(), directory, "model").notes == []
        assert self.cache.tree.num_in_all == kept.num_tokens == int(share * total)

    def teardown(self) -> None:
        super().teardown()
        self.directory.cleanup()


CacheAgainstPrefixes.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
HostTierAgainstPrefixes.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestCacheAgainstPrefixes = CacheAgainstPrefixes.TestCase
TestHostTierAgainstPrefixes = HostTierAgainstPrefixes.TestCase
