"""The tree of cached prefixes: the token paths that have KV, each token's tier and slot. Pure Python.

A radix tree over token ids, as in RadixAttention (Zheng et al., 2024), at token granularity. An edge stores its ids and
slots in `array('q')`. Comparing two slices of such arrays is one loop in C. A path therefore costs Python time per node
and C time per token. The tree takes ownership of an array that it is given, which saves a copy of a long path. It
copies any other sequence.

KV evicted from the device can stay in lower tiers (host, disk) of the same tree. The nodes below a node are never in a
higher tier than it. Each path is therefore on the device first, then in lower tiers, then not cached.

No method recurses, because a conversation can be any number of nodes deep.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from treechat_engine.kvcache.radix_node import (
    DEVICE,
    HOST,
    NUM_TIERS,
    Freed,
    InsertResult,
    Ints,
    Match,
    RadixNode,
    Rank,
    Ranking,
    as_ints,
    common_len,
    no_slots,
)


class Reach(NamedTuple):
    """The cached length of a path.

    resident: leading tokens on the device.
    lower: tokens after them in lower tiers.
    """

    resident: int
    lower: int


class _PathEnd(NamedTuple):
    """The end of a path's cached part in the tree.

    node: the node whose edge contains the end.
    offset: the number of tokens before the end in that edge.
    reach: the cached length of the path.
    is_whole: whether the whole path is cached.
    """

    node: RadixNode
    offset: int
    reach: Reach
    is_whole: bool


class RadixTree:
    """Paths of token ids with one slot per token. `namespace` identifies the KV's owner (a model's fingerprint)."""

    def __init__(self, namespace: str = "") -> None:
        self.namespace = namespace
        self.num_evictable = 0
        self.now = 0
        self._num_tokens = [0] * NUM_TIERS
        self._num_created = 0
        # By tier: the unlocked nodes that have no child in the same tier.
        self._leaves: list[set[RadixNode]] = [set() for _ in range(NUM_TIERS)]
        self.root = RadixNode(None, array("q"), array("q"), 0, 0, DEVICE)

    @property
    def num_tokens(self) -> int:
        """Tokens in the device tier; `num_evictable` of them are not locked."""
        return self._num_tokens[DEVICE]

    def num_in(self, tier: int) -> int:
        """Return the number of tokens in a tier."""
        return self._num_tokens[tier]

    @property
    def num_in_all(self) -> int:
        """Tokens in all tiers."""
        return sum(self._num_tokens)

    def peek(self, ids: Sequence[int]) -> int:
        """Return the length in tokens of the longest prefix of `ids` on the device."""
        return self.reach(ids).resident

    def reach(self, ids: Sequence[int]) -> Reach:
        """Return the cached length of `ids` in all tiers."""
        return self._follow(_PathEnd(self.root, 0, Reach(0, 0), True), as_ints(ids)).reach

    def reach_along(self, spans: Sequence[Sequence[int]], parents: Sequence[int]) -> list[Reach]:
        """Return the cached lengths of many paths that share prefixes, in one walk of the tree.

        Path i is path parents[i] followed by spans[i]. parents[i] is less than i, or -1 for none. Each span is looked
        up once.
        """
        start = _PathEnd(self.root, 0, Reach(0, 0), True)
        ends: list[_PathEnd] = []
        for span, parent in zip(spans, parents, strict=True):
            end = ends[parent] if parent >= 0 else start
            ends.append(self._follow(end, as_ints(span)) if end.is_whole else end)
        return [end.reach for end in ends]

    def node_at(self, ids: Sequence[int]) -> RadixNode:
        """Return the node whose edge contains the end of the cached part of `ids`; the root if nothing is cached."""
        return self._follow(_PathEnd(self.root, 0, Reach(0, 0), True), as_ints(ids)).node

    def path(self, node: RadixNode, ancestor: RadixNode | None = None) -> list[RadixNode]:
        """Return the nodes from the root, or from `ancestor`, down to `node`. The start is not included."""
        stop = ancestor or self.root
        nodes = []
        while node is not stop:
            nodes.append(node)
            assert node.parent is not None, f"{stop!r} is no ancestor"
            node = node.parent
        nodes.reverse()
        return nodes

    def slot_array(self, node: RadixNode, ancestor: RadixNode | None = None) -> Ints:
        """Return the slots of the path to `node` as a new array, by position. Positions start after `ancestor` if it is
        given.
        """
        slots = array("q")
        for each in self.path(node, ancestor):
            slots.extend(each.slots)
        return slots

    def slots_of(self, node: RadixNode) -> list[int]:
        """Return the slots of the path from the root to `node`, by position."""
        return self.slot_array(node).tolist()

    def nodes(self) -> Iterator[RadixNode]:
        """Iterate over all nodes except the root, parents before children."""
        stack = list(self.root.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())

    def match(self, ids: Sequence[int]) -> Match:
        """Return the longest cached prefix of `ids`. Splits an edge if the prefix ends inside it. Updates the path's
        recency.
        """
        node, length = self._descend(self.root, as_ints(ids))
        lower: list[RadixNode] = []
        while node.tier != DEVICE:
            lower.append(node)
            length -= len(node.ids)
            assert node.parent is not None, f"{node!r} has no parent"
            node = node.parent
        lower.reverse()
        return Match(node, length, lower)

    def insert(
        self, ids: Sequence[int], slots: Sequence[int], node: RadixNode | None = None, tier: int = DEVICE
    ) -> InsertResult:
        """Add the path `ids` below `node` (None: the root), with one slot of `tier` per id.

        If a token already has a slot in that tier or a higher one, that slot stays. The first `num_existing` of the
        given slots are then not used and still belong to the caller. A token of a lower tier moves to its given slot.
        """
        key, values = as_ints(ids), as_ints(slots)
        assert len(key) == len(values), f"{len(key)} ids with {len(values)} slots"
        parent, num_found = self._descend(node or self.root, key)
        freed, num_existing = no_slots(), num_found
        lower_nodes: list[RadixNode] = []
        above = parent
        while above.tier > tier:
            lower_nodes.append(above)
            num_existing -= len(above.ids)
            assert above.parent is not None, f"{above!r} has no parent"
            above = above.parent
        start = num_existing
        for each in reversed(lower_nodes):
            stop = start + len(each.ids)
            freed[each.tier].extend(self.move(each, tier, values[start:stop]))
            start = stop
        if num_found < len(key):
            whole = num_found == 0
            parent = self._attach(
                parent, key if whole else key[num_found:], values if whole else values[num_found:], tier
            )
        return InsertResult(parent, num_existing, freed)

    def lock(self, node: RadixNode, ancestor: RadixNode | None = None) -> None:
        """Protect the path to `node` from eviction until `unlock`.

        ancestor: the caller has locked it; that lock moves down to `node`.
        """
        for each in self.path(node, ancestor):
            each.lock_count += 1
            if each.lock_count == 1:
                if each.tier == DEVICE:
                    self.num_evictable -= len(each.ids)
                self._leaves[each.tier].discard(each)

    def unlock(self, node: RadixNode, ancestor: RadixNode | None = None) -> None:
        """Undo one `lock` of the path to `node`. With `ancestor`, the lock moves up to it."""
        for each in self.path(node, ancestor):
            assert each.lock_count > 0, f"{each!r} is not locked"
            each.lock_count -= 1
            if each.lock_count == 0:
                if each.tier == DEVICE:
                    self.num_evictable += len(each.ids)
                self._update_leaf(each)

    def evict(
        self,
        num_slots: int,
        ranking: Ranking,
        tier: int = DEVICE,
        colder_than: Rank | None = None,
        demote: Callable[[Ints], Ints] | None = None,
    ) -> Freed:
        """Remove `num_slots` tokens from a tier, or all unlocked tokens if there are fewer.

        Takes unlocked leaves, lowest rank first. A parent that loses its last child becomes a leaf. The last leaf loses
        only as many tokens as needed, from its end, so no more tokens are removed than requested.

        num_slots: tokens to remove.
        ranking: the rank of a leaf.
        tier: the tier that loses the tokens.
        colder_than: stop at a leaf of this rank or a higher one; None: no limit.
        demote: takes a leaf's slots; returns host slots for as many leading tokens as the host has room for. The other
            tokens are dropped with all nodes below. None: all are dropped.
        """
        heap = [(ranking(leaf), leaf.serial, leaf) for leaf in self._leaves[tier]]
        heapq.heapify(heap)
        freed = no_slots()
        left = num_slots
        while heap and left > 0:
            rank, _, leaf = heapq.heappop(heap)
            if colder_than is not None and rank >= colder_than:
                break
            if len(leaf.ids) > left:
                self._split(leaf, len(leaf.ids) - left)
            left -= len(leaf.ids)
            parent = leaf.parent
            assert parent is not None, f"{leaf!r} is the root"
            parent.last_access = max(parent.last_access, leaf.last_access)
            host_slots = demote(leaf.slots) if demote is not None else None
            if host_slots:
                if len(host_slots) < len(leaf.ids):
                    upper = self._split(leaf, len(host_slots))
                    self.remove(leaf, freed)
                    leaf = upper
                freed[tier].extend(self.move(leaf, HOST, host_slots))
            else:
                self.remove(leaf, freed)
            if parent in self._leaves[tier]:
                heapq.heappush(heap, (ranking(parent), parent.serial, parent))
        return freed

    def move(self, node: RadixNode, tier: int, slots: Ints) -> Ints:
        """Give `node` new slots of another tier. Returns its old slots."""
        old, node.slots = node.slots, slots
        size = len(node.ids)
        assert len(slots) == size, f"{len(slots)} slots for {node!r}"
        self._leave_tier(node, size)
        node.tier = tier
        node.num_same = sum(child.tier == tier for child in node.children.values())
        self._enter_tier(node, size)
        return old

    def remove(self, top: RadixNode, freed: Freed) -> None:
        """Unlink an unlocked node with all nodes below it. Appends their slots to `freed`."""
        assert top.parent is not None and top.lock_count == 0, f"{top!r} cannot be removed"
        del top.parent.children[top.ids[0]]
        freed[top.tier].extend(top.slots)
        self._leave_tier(top, len(top.ids))
        nodes = list(top.children.values()) if top.children else ()
        while nodes:
            node = nodes.pop()
            freed[node.tier].extend(node.slots)
            self._num_tokens[node.tier] -= len(node.ids)
            if node.tier == DEVICE:
                self.num_evictable -= len(node.ids)
            self._leaves[node.tier].discard(node)
            nodes.extend(node.children.values())

    def free(self, ids: Sequence[int], start: int = 0) -> Freed:
        """Remove the cached tokens of `ids` after the first `start`, with all nodes below them.

        Tokens that belong to another path too, and locked tokens, stay.
        """
        key, freed = as_ints(ids), no_slots()
        node, pos = self._descend(self.root, key[:start])
        top: RadixNode | None = None
        while start <= pos < len(key) and (child := node.children.get(key[pos])) is not None:
            common = common_len(child.ids, key, pos)
            pos += common
            if top is None or len(node.children) > 1:
                top = child
            node = child
            if common < len(child.ids):
                if pos < len(key):
                    # Another path continues from here.
                    return freed
                break
        if top is None or (pos < len(key) and node.children):
            return freed
        self.drop(top, freed)
        return freed

    def drop(self, top: RadixNode, freed: Freed) -> None:
        """Unlink the unlocked part of a node and of all nodes below it. Appends its slots to `freed`."""
        nodes = [top]
        while nodes:
            node = nodes.pop()
            if node.lock_count:
                nodes.extend(node.children.values())
            else:
                self.remove(node, freed)

    def check(self) -> None:
        """Assert all invariants of the tree. Takes time proportional to its size."""
        num_tokens, num_slots = [0] * NUM_TIERS, [0] * NUM_TIERS
        leaves: list[set[RadixNode]] = [set() for _ in range(NUM_TIERS)]
        slots: list[set[int]] = [set() for _ in range(NUM_TIERS)]
        num_evictable = 0
        for node in self.nodes():
            self._check_node(node)
            num_tokens[node.tier] += len(node.ids)
            num_slots[node.tier] += len(node.slots)
            slots[node.tier].update(node.slots)
            if node.lock_count == 0:
                num_evictable += len(node.ids) if node.tier == DEVICE else 0
                if node.num_same == 0:
                    leaves[node.tier].add(node)
        assert num_tokens == self._num_tokens, f"{num_tokens} tokens, counted {self._num_tokens}"
        assert num_slots == [len(each) for each in slots], f"{num_slots} slots in all, a slot is there twice"
        assert num_evictable == self.num_evictable, f"{num_evictable} evictable, counted {self.num_evictable}"
        assert leaves == self._leaves, f"{leaves} unlocked leaves, kept {self._leaves}"

    def _follow(self, end: _PathEnd, key: Ints) -> _PathEnd:
        node, at = end.node, end.offset
        resident, lower = end.reach
        pos, size = 0, len(key)
        while pos < size:
            if at == len(node.ids):
                child = node.children.get(key[pos])
                if child is None:
                    break
                node, at = child, 0
            common = common_len(node.ids, key, pos, at)
            if common == 0:
                break
            at += common
            pos += common
            if node.tier == DEVICE:
                resident += common
            else:
                lower += common
        return _PathEnd(node, at, Reach(resident, lower), pos == size)

    def _new_node(self, parent: RadixNode | None, ids: Ints, slots: Ints, tier: int) -> RadixNode:
        self._num_created += 1
        return RadixNode(parent, ids, slots, self._num_created, self.now, tier)

    def _attach(self, parent: RadixNode, ids: Ints, slots: Ints, tier: int) -> RadixNode:
        leaf = self._new_node(parent, ids, slots, tier)
        parent.children[ids[0]] = leaf
        parent.is_fork = parent.is_fork or len(parent.children) > 1
        self._enter_tier(leaf, len(ids))
        return leaf

    def _enter_tier(self, node: RadixNode, size: int) -> None:
        """Add a node to its tier's counts, and remove its parent from the leaves."""
        self._num_tokens[node.tier] += size
        if node.tier == DEVICE and node.lock_count == 0:
            self.num_evictable += size
        self._update_leaf(node)
        parent = node.parent
        assert parent is not None and parent.tier <= node.tier, f"{node!r} below {parent!r}"
        if parent.tier == node.tier:
            parent.num_same += 1
            self._leaves[parent.tier].discard(parent)

    def _leave_tier(self, node: RadixNode, size: int) -> None:
        """Undo `_enter_tier`."""
        self._num_tokens[node.tier] -= size
        if node.tier == DEVICE and node.lock_count == 0:
            self.num_evictable -= size
        self._leaves[node.tier].discard(node)
        parent = node.parent
        if parent is not None and parent.tier == node.tier:
            parent.num_same -= 1
            if parent.num_same == 0:
                self._update_leaf(parent)

    def _update_leaf(self, node: RadixNode) -> None:
        if node.lock_count == 0 and node.num_same == 0 and node is not self.root:
            self._leaves[node.tier].add(node)

    def _descend(self, node: RadixNode, key: Ints) -> tuple[RadixNode, int]:
        """Follow `key` below `node` as far as the tree has it. Splits the edge in which it ends. Updates recency."""
        self.now += 1
        now, pos, size = self.now, 0, len(key)
        while pos < size:
            child = node.children.get(key[pos])
            if child is None:
                break
            common = common_len(child.ids, key, pos)
            pos += common
            node = child if common == len(child.ids) else self._split(child, common)
            node.last_access = now
            node.hits += 1
        return node, pos

    def _split(self, lower: RadixNode, offset: int) -> RadixNode:
        """Move the first `offset` tokens of `lower` to a new parent, which is returned. `lower` stays the same."""
        above = lower.parent
        assert above is not None and 0 < offset < len(lower.ids), f"split of {lower!r} at {offset}"
        upper = self._new_node(above, lower.ids[:offset], lower.slots[:offset], lower.tier)
        upper.lock_count, upper.hits = lower.lock_count, lower.hits
        upper.created, upper.last_access = lower.created, lower.last_access
        upper.num_same = 1
        del lower.ids[:offset], lower.slots[:offset]
        above.children[upper.ids[0]] = upper
        upper.children[lower.ids[0]] = lower
        lower.parent = upper
        return upper

    def _check_node(self, node: RadixNode) -> None:
        size, parent = len(node.ids), node.parent
        assert size == len(node.slots) > 0, f"{node!r}: {size} ids, {len(node.slots)} slots"
        assert parent is not None and parent.children[node.ids[0]] is node, f"{node!r} is misplaced"
        assert parent is self.root or parent.lock_count >= node.lock_count >= 0, f"{node!r}: locks of its parent"
        assert parent.tier <= node.tier, f"{node!r} below {parent!r}"
        same = sum(child.tier == node.tier for child in node.children.values())
        assert same == node.num_same, f"{node!r}: {same} children in its tier, counted {node.num_same}"
        assert node.is_fork or len(node.children) < 2, f"{node!r} is no fork"
