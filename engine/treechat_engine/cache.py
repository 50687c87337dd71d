"""KVCache = the tree of cached prefixes + the slot pool: lease, grow, commit, release, evict.

The life of a slot: free -> private to one lease (`grow`) -> in the tree (`commit`) -> free (`evict`). What a lease did
not commit goes straight back to free (`release`). At any time, free + in tree + private are all slots, none twice.

Not thread-safe: whoever shares a cache between threads holds a lock around each call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from treechat_engine.api import Residency
from treechat_engine.edges import DEVICE, RadixNode, as_ints
from treechat_engine.policy import Policy, Priority, make_policy
from treechat_engine.radix import RadixTree
from treechat_engine.slots import SlotPool, runs_of

# An eviction under pressure takes at least 1/32 of the pool. Evicting for one decoded token at a time would hand out a
# leaf's tail backwards, one run per token, and several leaves at once leave larger extents: in the long session
# of `tests/bench/bench_cache.py` paths have 22 runs, and 37 where it takes 256 slots. The cache stays 98 % full.
EVICT_SHARE = 32


class Lease:
    """A running request's hold on its cached prefix and on its own new slots. Made by `KVCache.lease`.

    slots: one per token of the path, index = position. The first `committed_len` are the tree's, the rest private.
    runs: the same slots as maximal contiguous runs (first slot, length). cached_len: tokens found at the start.
    version: changes whenever slots already handed out were rewritten, which only `commit` does.
    prompt_len: length of the ids that the lease was taken for.
    """

    def __init__(self, node: RadixNode, slots: Sequence[int], prompt_len: int) -> None:
        self.node = node
        self.slots = list(slots)
        self.runs = runs_of(slots)
        self.cached_len = self.committed_len = len(slots)
        self.prompt_len = prompt_len
        self.version = 0
        self.released = False

    def extend(self, slots: Sequence[int]) -> None:
        """Append private slots, joining the first new run to the last one where they touch."""
        self.slots.extend(slots)
        runs = runs_of(slots)
        if self.runs and runs and sum(self.runs[-1]) == runs[0][0]:
            start, length = self.runs.pop()
            runs[0] = (start, length + runs[0][1])
        self.runs.extend(runs)

    def rewrite(self, pos: int, slots: Sequence[int]) -> None:
        """Put `slots` in place of those from position `pos` on."""
        self.slots[pos : pos + len(slots)] = slots
        self.runs = runs_of(self.slots)
        self.version += 1


class KVCache:
    """Keys and values by token prefix. `policy` names an eviction policy ("tree", "lru", "lfu", "fifo") or is one.

    Raises KeyError for a policy of another name.
    """

    def __init__(self, pool: SlotPool, policy: str | Priority | Policy = "tree", namespace: str = "") -> None:
        self.pool = pool
        self.tree = RadixTree(namespace)
        self.evicted_tokens = 0
        self.policy = make_policy(policy)
        self._evict_batch = pool.num_slots // EVICT_SHARE
        self._leases: set[Lease] = set()

    @property
    def num_slots(self) -> int:
        return self.pool.num_slots

    @property
    def num_free(self) -> int:
        return self.pool.num_free

    @property
    def num_cached(self) -> int:
        """Tokens in the tree."""
        return self.tree.num_tokens

    @property
    def num_available(self) -> int:
        """The most slots that `grow` could give now: free and evictable ones."""
        return self.pool.num_free + self.tree.num_evictable

    def lease(self, ids: Sequence[int]) -> Lease:
        """Find the longest cached prefix of `ids`, at most len(ids) - 1 tokens of it, and lock it until `release`."""
        match = self.tree.match(as_ints(ids)[: max(0, len(ids) - 1)])
        self.tree.lock(match.node)
        lease = Lease(match.node, self.tree.slot_array(match.node), prompt_len=len(ids))
        self._leases.add(lease)
        return lease

    def grow(self, lease: Lease, n: int) -> bool:
        """Give the lease `n` more private slots, evicting what no lease holds where too few are free.

        False, and nothing changed, where even that would not be enough.
        """
        assert not lease.released, "a released lease cannot grow"
        if n > self.num_available:
            return False
        if n > self.pool.num_free:
            self.evict(max(n - self.pool.num_free, self._evict_batch))
        after = lease.slots[-1] if lease.slots else None
        room = max(0, lease.prompt_len - len(lease.slots) - n)
        lease.extend(self.pool.allocate(n, after, room))
        return True

    def commit(self, lease: Lease, ids: Sequence[int]) -> None:
        """Put what the lease computed into the tree, where other requests find it.

        ids: the tokens from position 0 on whose KV is written, len(ids) <= len(lease.slots); those committed before
        must be the same again. Where another request put the same tokens there first, its slots win: `lease.slots` is
        rewritten in place, `lease.version` changes, and the duplicates are freed.
        """
        start, end = lease.committed_len, len(ids)
        assert not lease.released, "a released lease cannot commit"
        assert start <= end <= len(lease.slots), f"{end} tokens: {start} committed, {len(lease.slots)} slots"
        if start == end:
            return
        mine = lease.slots[start:end]
        node, num_existing, _ = self.tree.insert(ids[start:], mine, lease.node)
        self.tree.lock(node, below=lease.node)
        if num_existing:
            theirs = self.tree.slot_array(node, below=lease.node)[:num_existing]
            lease.rewrite(start, theirs)
            self.pool.free(mine[:num_existing])
        lease.node = node
        lease.committed_len = end

    def release(self, lease: Lease) -> None:
        """Free the private slots and unlock the path. The lease then holds no slots; a second call does nothing."""
        if lease.released:
            return
        lease.released = True
        self._leases.remove(lease)
        self.pool.free(lease.slots[lease.committed_len :])
        self.tree.unlock(lease.node)
        lease.slots, lease.runs = [], []

    def protect(self, paths: Sequence[Sequence[int]]) -> None:
        """The paths that should be evicted last, the one at the cursor first: a bias, for policies that read it."""
        self.policy.protect([as_ints(ids) for ids in paths])

    def peek(self, ids: Sequence[int]) -> Residency:
        """Where the KV of `ids` is. Changes nothing, recency included."""
        resident = self.tree.peek(ids)
        return Residency(resident=resident, cold=len(ids) - resident)

    def evict(self, n: int) -> int:
        """Drop up to `n` cached tokens that no lease holds, in the policy's order; returns how many went."""
        freed = self.tree.evict(n, self.policy.ranking(self.tree))[DEVICE]
        self.pool.free(freed)
        self.evicted_tokens += len(freed)
        return len(freed)

    def clear(self) -> None:
        """Drop everything that no lease holds."""
        self.evict(self.tree.num_evictable)

    def check(self) -> None:
        """Assert every invariant of tree, pool and leases together; costs their size."""
        self.tree.check()
        self.pool.check()
        slots = [slot for start, length in self.pool.free_extents() for slot in range(start, start + length)]
        locks: Counter[RadixNode] = Counter()
        for node in self.tree.nodes():
            slots.extend(node.slots)
        for lease in self._leases:
            path = self.tree.slots_of(lease.node)
            assert path == lease.slots[: lease.committed_len], f"{len(path)} tokens in the tree are not the lease's"
            assert lease.runs == runs_of(lease.slots), f"{len(lease.runs)} runs are not those of the slots"
            slots.extend(lease.slots[lease.committed_len :])
            locks.update(self.tree.path(lease.node))
        assert sorted(slots) == list(range(self.num_slots)), (
            f"{len(slots)} slots accounted for, {self.num_slots} in all"
        )
        for node in self.tree.nodes():
            assert node.lock_count == locks[node], f"{node!r} is on the path of {locks[node]} leases"
