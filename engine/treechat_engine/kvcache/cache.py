"""KVCache = the tree of cached prefixes + the pools: lease, grow, commit, release, evict, offload, restore.

The life of a slot: free -> private to one lease (`grow`) -> in the tree (`commit`) -> free (`evict`). What a lease did
not commit goes straight back to free (`release`). At any time, free + in tree + private are all slots, none twice.
What is evicted goes to the host tier where there is one, and comes back with the next lease that wants it (`tiers.py`).

Not thread-safe: whoever shares a cache between threads holds a lock around each call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch

from treechat_engine.api import Residency
from treechat_engine.kvcache.eviction import Policy, make_policy
from treechat_engine.kvcache.lease import Lease
from treechat_engine.kvcache.radix import RadixTree
from treechat_engine.kvcache.radix_node import (
    DEVICE,
    DISK,
    HOST,
    Ints,
    Match,
    RadixNode,
    Rank,
    Ranking,
    as_ints,
    no_slots,
)
from treechat_engine.kvcache.slots import SlotPool, extents_of
from treechat_engine.kvcache.tiers import LowerTiers

__all__ = ["KVCache", "Lease"]

# An eviction under pressure takes at least 1/32 of the pool. Evicting for one decoded token at a time would hand out a
# leaf's tail backwards, one run per token, and several leaves at once leave larger extents: in the long session
# of `tests/bench/long_session.py` paths have 22 runs, and 37 where it takes 256 slots. The cache stays 98 % full.
EVICT_SHARE = 32


class KVCache:
    """Keys and values by token prefix. `policy` names an eviction policy ("tree", "lru", "lfu", "fifo") or is one.

    host_slots: slots of the host tier, 0 for none. pays: whether restoring so many tokens from the host and from disk
    is faster than computing them; None restores always. Raises EngineError for a policy of another name.
    """

    def __init__(
        self,
        pool: SlotPool,
        policy: str | Ranking | Policy = "tree",
        namespace: str = "",
        host_slots: int = 0,
        should_restore: Callable[[int, int], bool] | None = None,
    ) -> None:
        self.pool = pool
        self.tree = RadixTree(namespace)
        self.policy = make_policy(policy)
        self.lower_tiers = LowerTiers(pool, host_slots)
        self.evicted_tokens = 0
        self.restored_tokens = 0
        self.should_restore = should_restore
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
        """Tokens of the tree on the device."""
        return self.tree.num_tokens

    @property
    def num_on_host(self) -> int:
        """Tokens of the tree in the host pool."""
        return self.tree.num_in(HOST)

    @property
    def num_available(self) -> int:
        """The most slots that `grow` could give now: free and evictable ones."""
        return self.pool.num_free + self.tree.num_evictable

    def lease(self, ids: Sequence[int], is_warm: bool = False) -> Lease:
        """Find the longest cached prefix of `ids`, at most len(ids) - 1 tokens of it, and lock it until `release`.

        What lower tiers have of it comes to the device first, where that pays and slots can be had. ahead: the path is
        computed ahead of need, and evicts only what ranks lower.
        """
        key = as_ints(ids)
        bound = self.policy.rank_warm(self.tree, key) if is_warm else None
        match = self.tree.match(key[: max(0, len(key) - 1)])
        self.tree.lock(match.node)
        node = self._restore(match, bound) if match.lower_nodes else match.node
        slots = self.tree.slot_array(node)
        lease = Lease(node, slots, prompt_len=len(ids), restored_len=len(slots) - match.len, bound=bound)
        self._leases.add(lease)
        return lease

    def grow(self, lease: Lease, n: int) -> bool:
        """Give the lease `n` more private slots, evicting what no lease holds where too few are free.

        False, and no slots given, where even that would not be enough. A lease taken ahead of need evicts only what
        ranks lower than its path did then.
        """
        assert not lease.released, "a released lease cannot grow"
        if n > self.num_available:
            return False
        if n > self.pool.num_free:
            self.evict(max(n - self.pool.num_free, self._evict_batch), lease.bound)
            if n > self.pool.num_free:
                return False
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
        node, num_existing, freed = self.tree.insert(ids[start:], mine, lease.node)
        self.lower_tiers.free(freed)
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
        self._leases.remove(lease)
        self.pool.free(lease.slots[lease.committed_len :])
        self.tree.unlock(lease.node)
        lease.end()

    def protect(self, paths: Sequence[Sequence[int]]) -> None:
        """The paths that should be evicted last, the one at the cursor first: a bias, for policies that read it."""
        self.policy.protect([as_ints(ids) for ids in paths])

    def peek(self, ids: Sequence[int]) -> Residency:
        """Where the KV of `ids` is. Changes nothing, recency included."""
        resident, lower = self.tree.reach(ids)
        return Residency(resident=resident, host=lower, cold=len(ids) - resident - lower)

    def peek_along(self, spans: Sequence[Sequence[int]], parents: Sequence[int]) -> list[Residency]:
        """`peek` of many paths that share their beginnings, in one walk: path i is path parents[i] (an earlier one, or
        -1 for none) followed by spans[i]."""
        lengths: list[int] = []
        found: list[Residency] = []
        reaches = self.tree.reach_along(spans, parents)
        for (resident, lower), span, parent in zip(reaches, spans, parents, strict=True):
            lengths.append(len(span) + (lengths[parent] if parent >= 0 else 0))
            found.append(Residency(resident, lower, lengths[-1] - resident - lower))
        return found

    def read(self, path_ids: Ints, start: int) -> torch.Tensor | None:
        """The KV of path_ids[start:] as rows [n, width] on the CPU; None where it is no longer cached as a whole.

        Raises DamagedError where a file that should have it does not.
        """
        if sum(self.tree.reach(path_ids)) < len(path_ids):
            return None
        parts: list[torch.Tensor] = []
        at = 0
        for node in self.tree.path(self.tree.node_at(path_ids)):
            low, high = max(start - at, 0), min(len(path_ids) - at, len(node.ids))
            if low < high:
                parts.append(self.lower_tiers.read(node.tier, node.slots[low:high]))
            at += len(node.ids)
        return torch.cat(parts)

    def evict(self, n: int, colder_than: Rank | None = None) -> int:
        """Take up to `n` cached tokens that no lease holds off the device, by the policy; returns how many went.

        They go to the host where it has room, which drops what the policy ranks lowest there. colder_than: only what
        ranks lower than this.
        """
        ranking = self.policy.ranking(self.tree)
        demote = self.lower_tiers.make_room(self.tree, min(n, self.tree.num_evictable), ranking)
        freed = self.tree.evict(n, ranking, DEVICE, colder_than, demote)
        self.lower_tiers.offload()
        return self._give_back(freed)

    def clear(self) -> None:
        """Drop everything that no lease holds, in all tiers."""
        ranking = self.policy.ranking(self.tree)
        for tier in (DISK, HOST, DEVICE):
            self._give_back(self.tree.evict(self.tree.num_in(tier), ranking, tier))

    def free(self, ids: Sequence[int], start: int = 0) -> int:
        """Drop what is cached of `ids` behind its first `start` tokens, with all below it, in all tiers; returns how
        many tokens left the device. What another path has in common with it stays, and what a lease holds."""
        freed = self.tree.free(ids, start)
        self.pool.free(freed[DEVICE])
        self.lower_tiers.free(freed)
        return len(freed[DEVICE])

    def free_broken(self, ids: Sequence[int]) -> int:
        """Drop the first node of the path whose KV is not all numbers, with all below it; returns how many tokens left
        the device. What a lease holds stays."""
        freed = no_slots()
        for node in self.tree.path(self.tree.node_at(ids)):
            if not self.lower_tiers.is_sound(node):
                self.tree.drop(node, freed)
                break
        self.pool.free(freed[DEVICE])
        self.lower_tiers.free(freed)
        return len(freed[DEVICE])

    def check(self) -> None:
        """Assert every invariant of tree, pools and leases together; costs their size."""
        self.tree.check()
        self.pool.check()
        slots = [slot for start, length in self.pool.free_extents() for slot in range(start, start + length)]
        locks: Counter[RadixNode] = Counter()
        for node in self.tree.nodes():
            if node.tier == DEVICE:
                slots.extend(node.slots)
        for lease in self._leases:
            path = self.tree.slots_of(lease.node)
            assert path == lease.slots[: lease.committed_len].tolist(), (
                f"{len(path)} tokens in the tree: not the lease's"
            )
            assert lease.extents == extents_of(lease.slots), f"{len(lease.extents)} runs are not those of the slots"
            slots.extend(lease.slots[lease.committed_len :])
            locks.update(self.tree.path(lease.node))
        assert sorted(slots) == list(range(self.num_slots)), (
            f"{len(slots)} slots accounted for, {self.num_slots} in all"
        )
        for node in self.tree.nodes():
            assert node.lock_count == locks[node], f"{node!r} is on the path of {locks[node]} leases"
        self.lower_tiers.check(self.tree)

    def _give_back(self, freed: list[Ints]) -> int:
        """Free the device's slots and those of lower tiers; returns how many left the device."""
        self.pool.free(freed[DEVICE])
        self.lower_tiers.free(freed)
        self.evicted_tokens += len(freed[DEVICE])
        return len(freed[DEVICE])

    def _restore(self, match: Match, bound: Rank | None) -> RadixNode:
        """Bring what lower tiers have of a match to the device, from its beginning on, as far as slots can be had.

        The caller's lock of `match.node` moves down to the node that is returned.
        """
        nodes = match.lower_nodes
        sizes = [sum(len(node.ids) for node in nodes if node.tier == tier) for tier in (HOST, DISK)]
        if self.should_restore is not None and not self.should_restore(*sizes):
            return match.node
        # Locked, so that the room that is made for them is not made of them.
        self.tree.lock(nodes[-1], below=match.node)
        missing = min(sum(sizes), self.num_available) - self.pool.num_free
        if missing > 0:
            self.evict(missing, bound)
        last = match.node
        for node in nodes:
            if len(node.ids) > self.pool.num_free:
                break
            after = last.slots[-1] if last.slots else None
            slots = self.pool.allocate(len(node.ids), after)
            if not self.lower_tiers.restore(node, slots):
                self.pool.free(slots)
                break
            self.lower_tiers.free_in(node.tier, self.tree.move(node, DEVICE, slots))
            self.restored_tokens += len(slots)
            last = node
        damaged = self.lower_tiers.take_damaged()
        self.tree.unlock(nodes[-1], below=last)
        if damaged is not None:
            freed = no_slots()
            self.tree.remove(damaged, freed)
            self.lower_tiers.free(freed)
        return last
