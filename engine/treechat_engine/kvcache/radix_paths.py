"""Reading the tree of cached prefixes: what is where, and that it all adds up. Changes nothing, recency included."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from treechat_engine.kvcache.radix_node import DEVICE, NUM_TIERS, Ints, RadixNode, as_ints, common_len


class Reach(NamedTuple):
    """How far a path is cached: its tokens on the device, and those in lower tiers after them."""

    resident: int
    lower: int


class _Place(NamedTuple):
    """Where a path ends in the tree: `at` tokens into the edge of `node`. is_whole: all of the path is cached."""

    node: RadixNode
    at: int
    reach: Reach
    is_whole: bool


class CachedPaths:
    """The tree as it is read; `RadixTree` adds what changes it."""

    def __init__(self, namespace: str = "") -> None:
        self.namespace = namespace
        self.num_evictable = 0
        self.now = 0
        self._num_tokens = [0] * NUM_TIERS
        self._num_created = 0
        # By tier: unlocked nodes without a child in the same tier.
        self._leaves: list[set[RadixNode]] = [set() for _ in range(NUM_TIERS)]
        self.root = RadixNode(None, array("q"), array("q"), 0, 0, DEVICE)

    @property
    def num_tokens(self) -> int:
        """Tokens in the device's tier; `num_evictable` of them are not locked."""
        return self._num_tokens[DEVICE]

    def num_in(self, tier: int) -> int:
        """Tokens in a tier."""
        return self._num_tokens[tier]

    @property
    def num_in_all(self) -> int:
        """Tokens in all tiers."""
        return sum(self._num_tokens)

    def peek(self, ids: Sequence[int]) -> int:
        """Length of the longest prefix of `ids` on the device, in tokens."""
        return self.reach(ids).resident

    def reach(self, ids: Sequence[int]) -> Reach:
        """How far `ids` is cached, in all tiers."""
        return self._follow(_Place(self.root, 0, Reach(0, 0), True), as_ints(ids)).reach

    def reach_along(self, spans: Sequence[Sequence[int]], parents: Sequence[int]) -> list[Reach]:
        """How far each of many paths that share their beginnings is cached, in one walk of the tree.

        Path i is path parents[i] (an earlier one; -1 for none) followed by spans[i]: each span is looked up once.
        """
        start = _Place(self.root, 0, Reach(0, 0), True)
        places: list[_Place] = []
        for span, parent in zip(spans, parents, strict=True):
            place = places[parent] if parent >= 0 else start
            places.append(self._follow(place, as_ints(span)) if place.is_whole else place)
        return [place.reach for place in places]

    def node_at(self, ids: Sequence[int]) -> RadixNode:
        """The node in whose edge the cached part of `ids` ends; the root where nothing is cached."""
        return self._follow(_Place(self.root, 0, Reach(0, 0), True), as_ints(ids)).node

    def _follow(self, place: _Place, key: Ints) -> _Place:
        node, at = place.node, place.at
        resident, lower = place.reach
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
        return _Place(node, at, Reach(resident, lower), pos == size)

    def path(self, node: RadixNode, below: RadixNode | None = None) -> list[RadixNode]:
        """The nodes from the root (or from the ancestor `below`), itself left out, down to `node`."""
        stop = below or self.root
        nodes = []
        while node is not stop:
            nodes.append(node)
            assert node.parent is not None, f"{stop!r} is no ancestor"
            node = node.parent
        nodes.reverse()
        return nodes

    def slot_array(self, node: RadixNode, below: RadixNode | None = None) -> Ints:
        """Slots of the path to `node` as a new array, index = position (counted from `below` where given)."""
        slots = array("q")
        for each in self.path(node, below):
            slots.extend(each.slots)
        return slots

    def slots_of(self, node: RadixNode) -> list[int]:
        """Slots of the path from the root to `node`, index = position."""
        return self.slot_array(node).tolist()

    def nodes(self) -> Iterator[RadixNode]:
        """Every node but the root, parents before children."""
        stack = list(self.root.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())

    def leaves(self, tier: int) -> Iterator[RadixNode]:
        """The unlocked nodes of a tier that have no child in it."""
        return iter(self._leaves[tier])

    def check(self) -> None:
        """Assert every invariant of the tree; costs its size."""
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

    def _check_node(self, node: RadixNode) -> None:
        size, parent = len(node.ids), node.parent
        assert size == len(node.slots) > 0, f"{node!r}: {size} ids, {len(node.slots)} slots"
        assert parent is not None and parent.children[node.ids[0]] is node, f"{node!r} is misplaced"
        assert parent is self.root or parent.lock_count >= node.lock_count >= 0, f"{node!r}: locks of its parent"
        assert parent.tier <= node.tier, f"{node!r} below {parent!r}"
        same = sum(child.tier == node.tier for child in node.children.values())
        assert same == node.num_same, f"{node!r}: {same} children in its tier, counted {node.num_same}"
        assert node.is_fork or len(node.children) < 2, f"{node!r} is no fork"
