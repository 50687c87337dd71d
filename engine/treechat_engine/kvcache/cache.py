"""Keys and values (KV) by token prefix: the tree of cached prefixes and the pools.

A slot is free, then private to one lease (`grow`), then in the tree (`commit`), then free again (`evict`). `release`
frees the slots that a lease did not commit. At any time, free, tree and private slots are all slots, and none is
counted twice. Evicted KV goes to the host tier if there is one, and comes back with the next lease on it (`tiers.py`).

Not thread-safe: threads that share a cache hold a lock during each call.
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

# An eviction under pressure takes at least 1/32 of the pool. Evicting one slot per decoded token would return a leaf's
# slots in reverse order, one extent per token; evicting several leaves at once frees larger extents. In
# `tests/bench/long_session.py` paths have 22 extents, and 37 if it takes 256 slots. The cache stays 98 % full.
EVICT_SHARE = 32


class KVCache:
    """Keys and values by token prefix. Raises EngineError for an unknown policy name.

    pool: the slots of the device.
    policy: an eviction policy, or its name: "tree", "lru", "lfu" or "fifo".
    namespace: identifies the owner of the KV (a model's fingerprint).
    host_slots: slots of the host tier; 0 for none.
    should_restore: given numbers of tokens on the host and on disk, returns whether restoring them is faster than
        computing them. None: always restore.
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
        """Find the longest cached prefix of `ids`, at most len(ids) - 1 tokens, and lock it until `release`.

        Restores its part in lower tiers first, if that is faster than computing it and slots are available.

        is_warm: the path is computed ahead of need; the lease evicts only KV of a lower rank.
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
        """Give the lease `n` more private slots. Evicts unlocked KV if too few slots are free.

        Returns False, and gives none, if there still are too few. A warm lease evicts only KV that ranks lower than its
        path did when it was taken.
        """
        assert not lease.released, "a released lease cannot grow"
        if n > self.num_available:
            return False
        if n > self.pool.num_free:
            self.evict(max(n - self.pool.num_free, self._evict_batch), lease.bound)
            if n > self.pool.num_free:
                return False
        last_slot = lease.slots[-1] if lease.slots else None
        room = max(0, lease.prompt_len - len(lease.slots) - n)
        lease.extend(self.pool.allocate(n, last_slot, room))
        return True

    def commit(self, lease: Lease, ids: Sequence[int]) -> None:
        """Move the lease's computed tokens into the tree, so that other requests find them.

        ids: the tokens from position 0 whose KV is written, len(ids) <= len(lease.slots); the committed ones must be
            equal to those of earlier calls.

            positions                             slots before         slots after
            0 .. committed_len                    the tree's           unchanged
            committed_len .. + num_existing       private              the tree's; the private duplicates are freed
            committed_len + num_existing .. end   private              the same, now the tree's
            end .. len(lease.slots)               private              unchanged

        `end` is len(ids). `num_existing` counts the tokens that another request committed first. If there are any,
        `lease.slots` is rewritten in place and `lease.version` changes.
        """
        start, end = lease.committed_len, len(ids)
        assert not lease.released, "a released lease cannot commit"
        assert start <= end <= len(lease.slots), f"{end} tokens: {start} committed, {len(lease.slots)} slots"
        if start == end:
            return
        mine = lease.slots[start:end]
        node, num_existing, freed = self.tree.insert(ids[start:], mine, lease.node)
        self.lower_tiers.free(freed)
        self.tree.lock(node, ancestor=lease.node)
        if num_existing:
            theirs = self.tree.slot_array(node, ancestor=lease.node)[:num_existing]
            lease.rewrite(start, theirs)
            self.pool.free(mine[:num_existing])
        lease.node = node
        lease.committed_len = end

    def release(self, lease: Lease) -> None:
        """Free the lease's private slots and unlock its path. The lease then has none. A second call does nothing."""
        if lease.released:
            return
        self._leases.remove(lease)
        self.pool.free(lease.slots[lease.committed_len :])
        self.tree.unlock(lease.node)
        lease.end()

    def protect(self, paths: Sequence[Sequence[int]]) -> None:
        """Set the paths to evict last, the current one first. A bias, for policies that use it."""
        self.policy.protect([as_ints(ids) for ids in paths])

    def peek(self, ids: Sequence[int]) -> Residency:
        """Return where the KV of `ids` is. Changes nothing, including recency."""
        resident, lower = self.tree.reach(ids)
        return Residency(resident=resident, host=lower, cold=len(ids) - resident - lower)

    def peek_along(self, spans: Sequence[Sequence[int]], parents: Sequence[int]) -> list[Residency]:
        """`peek` at many paths that share prefixes, in one walk. Path i is path parents[i] followed by spans[i].

        parents[i] is less than i, or -1 for none.
        """
        lengths: list[int] = []
        found: list[Residency] = []
        reaches = self.tree.reach_along(spans, parents)
        for (resident, lower), span, parent in zip(reaches, spans, parents, strict=True):
            lengths.append(len(span) + (lengths[parent] if parent >= 0 else 0))
            found.append(Residency(resident, lower, lengths[-1] - resident - lower))
        return found

    def read(self, path_ids: Ints, start: int) -> torch.Tensor | None:
        """Return the KV of path_ids[start:] as rows [n, width] on the CPU; None if it is no longer cached completely.

        Raises DamagedError if its file is damaged or missing.
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
        """Remove up to `n` unlocked tokens from the device, in the order of the policy. Returns the number removed.

        They move to the host if it has room. The host makes room by dropping its lowest-ranked tokens.

        colder_than: evict only tokens below this rank; None: no limit.
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
        """Drop the cached tokens of `ids` after the first `start`, with all nodes below them, in all tiers.

        Tokens of other paths and of leases stay. Returns the number of tokens removed from the device.
        """
        freed = self.tree.free(ids, start)
        self.pool.free(freed[DEVICE])
        self.lower_tiers.free(freed)
        return len(freed[DEVICE])

    def free_broken(self, ids: Sequence[int]) -> int:
        """Drop the first node of the path that has non-finite KV, with all nodes below it.

        Tokens of leases stay. Returns the number of tokens removed from the device.
        """
        freed = no_slots()
        for node in self.tree.path(self.tree.node_at(ids)):
            if not self.lower_tiers.is_sound(node):
                self.tree.drop(node, freed)
                break
        self.pool.free(freed[DEVICE])
        self.lower_tiers.free(freed)
        return len(freed[DEVICE])

    def check(self) -> None:
        """Assert all invariants of tree, pools and leases. Takes time proportional to their size."""
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
            assert lease.extents == extents_of(lease.slots), f"{len(lease.extents)} extents do not match the slots"
            slots.extend(lease.slots[lease.committed_len :])
            locks.update(self.tree.path(lease.node))
        assert sorted(slots) == list(range(self.num_slots)), (
            f"{len(slots)} slots accounted for, {self.num_slots} in all"
        )
        for node in self.tree.nodes():
            assert node.lock_count == locks[node], f"{node!r} is on the path of {locks[node]} leases"
        self.lower_tiers.check(self.tree)

    def _give_back(self, freed: list[Ints]) -> int:
        """Free slots of the device and of lower tiers. Returns the number of device slots."""
        self.pool.free(freed[DEVICE])
        self.lower_tiers.free(freed)
        self.evicted_tokens += len(freed[DEVICE])
        return len(freed[DEVICE])

    def _restore(self, match: Match, bound: Rank | None) -> RadixNode:
        """Copy a match's nodes of lower tiers to the device, from the first on, as long as slots are available.

        The caller's lock of `match.node` moves down to the returned node.
        """
        nodes = match.lower_nodes
        sizes = [sum(len(node.ids) for node in nodes if node.tier == tier) for tier in (HOST, DISK)]
        if self.should_restore is not None and not self.should_restore(*sizes):
            return match.node
        # Locked, so that `evict` does not take these nodes to make room for them.
        self.tree.lock(nodes[-1], ancestor=match.node)
        missing = min(sum(sizes), self.num_available) - self.pool.num_free
        if missing > 0:
            self.evict(missing, bound)
        last = match.node
        for node in nodes:
            if len(node.ids) > self.pool.num_free:
                break
            last_slot = last.slots[-1] if last.slots else None
            slots = self.pool.allocate(len(node.ids), last_slot)
            if not self.lower_tiers.restore(node, slots):
                self.pool.free(slots)
                break
            self.lower_tiers.free_in(node.tier, self.tree.move(node, DEVICE, slots))
            self.restored_tokens += len(slots)
            last = node
        damaged_node = self.lower_tiers.take_damaged()
        self.tree.unlock(nodes[-1], ancestor=last)
        if damaged_node is not None:
            freed = no_slots()
            self.tree.remove(damaged_node, freed)
            self.lower_tiers.free(freed)
        return last
