"""The tree of cached prefixes: which token paths have KV, and in which slots. Pure Python.

A radix tree over token ids, as in RadixAttention (Zheng et al., 2024), at token granularity. An edge keeps its ids and
its slots in `array('q')`: comparing two slices of such arrays is one loop in C, so a path costs its number of nodes in
Python and its number of tokens only in C. Callers that hold an `array('q')` already save the conversion of a list.

No method recurses: a conversation may be any number of nodes deep.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

Ints: TypeAlias = "array[int]"


class RadixNode:
    """One edge of the tree with the node at its end.

    A node that is locked keeps its identity and the length of its path: a split gives the upper half to a new node, and
    the lower half stays this object. A node that is not locked may be trimmed or removed by the next `evict`.
    """

    __slots__ = ("children", "created", "hits", "ids", "last_access", "lock_count", "parent", "serial", "slots")

    def __init__(self, parent: RadixNode | None, ids: Ints, slots: Ints, serial: int, now: int) -> None:
        self.parent = parent
        self.children: dict[int, RadixNode] = {}
        self.ids = ids
        self.slots = slots
        self.serial = serial
        self.lock_count = 0
        self.created = now
        self.last_access = now
        self.hits = 0

    def __repr__(self) -> str:
        return (
            f"RadixNode({self.serial}, {len(self.ids)} tokens, {len(self.children)} children, {self.lock_count} locks)"
        )


Priority: TypeAlias = Callable[[RadixNode], tuple[float, ...]]


def lru(node: RadixNode) -> tuple[float, ...]:
    """Least recently used first."""
    return (node.last_access,)


def lfu(node: RadixNode) -> tuple[float, ...]:
    """Least often matched first, then least recently."""
    return (node.hits, node.last_access)


def fifo(node: RadixNode) -> tuple[float, ...]:
    """Oldest first."""
    return (node.created,)


POLICIES: dict[str, Priority] = {"lru": lru, "lfu": lfu, "fifo": fifo}


class Match(NamedTuple):
    """The longest cached prefix: the node that ends exactly at it (the root for none) and its length in tokens."""

    node: RadixNode
    len: int


class InsertResult(NamedTuple):
    """The node that ends at the last inserted id, and how many of the given ids had KV in the tree before."""

    node: RadixNode
    num_existing: int


def as_ints(values: Sequence[int]) -> Ints:
    """`values` as an `array('q')`; the same object where it is one already."""
    return values if isinstance(values, array) and values.typecode == "q" else array("q", values)


def common_len(edge: Ints, key: Ints, start: int) -> int:
    """Number of leading items in which `edge` and `key[start:]` agree."""
    size = min(len(edge), len(key) - start)
    if size == len(edge):
        if edge == (key if size == len(key) else key[start : start + size]):
            return size
    elif edge[:size] == key[start:]:
        return size
    low, high = 0, size  # the first `low` items agree, the first `high` do not
    while high - low > 1:
        mid = (low + high) // 2
        if edge[low:mid] == key[start + low : start + mid]:
            low = mid
        else:
            high = mid
    return low


class RadixTree:
    """Paths of token ids with a slot per token. `namespace` names what the KV belongs to (a model's fingerprint)."""

    def __init__(self, namespace: str = "") -> None:
        self.namespace = namespace
        self.num_tokens = 0
        self.num_evictable = 0
        self._clock = 0
        self._num_created = 0
        self._unlocked_leaves: set[RadixNode] = set()
        self.root = self._new_node(None, array("q"), array("q"))

    def match(self, ids: Sequence[int]) -> Match:
        """The longest cached prefix of `ids`. Splits an edge where the prefix ends inside it, and touches the path."""
        return Match(*self._descend(self.root, as_ints(ids)))

    def peek(self, ids: Sequence[int]) -> int:
        """Length of the longest cached prefix of `ids`, in tokens. Changes nothing."""
        key, node, pos = as_ints(ids), self.root, 0
        while pos < len(key):
            child = node.children.get(key[pos])
            if child is None:
                break
            common = common_len(child.ids, key, pos)
            pos += common
            if common < len(child.ids):
                break
            node = child
        return pos

    def insert(self, ids: Sequence[int], slots: Sequence[int], node: RadixNode | None = None) -> InsertResult:
        """Add the path `ids` below `node` (the root when None), with one slot per id.

        Where the tree has a token already, the tree's slot stays: the first `num_existing` of the given slots were not
        taken and are still the caller's.
        """
        key, values = as_ints(ids), as_ints(slots)
        assert len(key) == len(values), f"{len(key)} ids with {len(values)} slots"
        parent, num_existing = self._descend(node or self.root, key)
        if num_existing == len(key):
            return InsertResult(parent, num_existing)
        leaf = self._new_node(parent, key[num_existing:], values[num_existing:])
        parent.children[leaf.ids[0]] = leaf
        self._unlocked_leaves.discard(parent)
        self._unlocked_leaves.add(leaf)
        self.num_tokens += len(leaf.ids)
        self.num_evictable += len(leaf.ids)
        return InsertResult(leaf, num_existing)

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

    def lock(self, node: RadixNode, below: RadixNode | None = None) -> None:
        """Keep the path to `node` from eviction until `unlock`. With `below`, a lock that the caller holds on that
        ancestor moves down to `node`."""
        for each in self.path(node, below):
            if each.lock_count == 0:
                self.num_evictable -= len(each.ids)
                self._unlocked_leaves.discard(each)
            each.lock_count += 1

    def unlock(self, node: RadixNode) -> None:
        """Take back one `lock` of the path to `node`."""
        for each in self.path(node):
            assert each.lock_count > 0, f"{each!r} is not locked"
            each.lock_count -= 1
            if each.lock_count == 0:
                self.num_evictable += len(each.ids)
                if not each.children:
                    self._unlocked_leaves.add(each)

    def evict(self, num_slots: int, priority: Priority = lru) -> list[int]:
        """Drop `num_slots` tokens, or all that are not locked where these are fewer, and return their slots.

        Takes unlocked leaves, lowest `priority` first; a parent left without children is a leaf in its turn. Of the
        last leaf only as many tokens go as are needed, from its end, so never more than asked for.
        """
        heap = [(priority(leaf), leaf.serial, leaf) for leaf in self._unlocked_leaves]
        heapq.heapify(heap)
        freed = array("q")
        while heap and len(freed) < num_slots:
            leaf = heapq.heappop(heap)[2]
            keep = max(0, len(leaf.ids) - (num_slots - len(freed)))
            freed.extend(leaf.slots[keep:])
            if keep:
                del leaf.ids[keep:], leaf.slots[keep:]
                break
            parent = self._remove(leaf)
            if parent in self._unlocked_leaves:
                heapq.heappush(heap, (priority(parent), parent.serial, parent))
        self.num_tokens -= len(freed)
        self.num_evictable -= len(freed)
        return freed.tolist()

    def nodes(self) -> Iterator[RadixNode]:
        """Every node but the root, parents before children."""
        stack = list(self.root.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())

    def check(self) -> None:
        """Assert every invariant of the tree; costs its size."""
        num_tokens = num_evictable = 0
        leaves: set[RadixNode] = set()
        slots: set[int] = set()
        for node in self.nodes():
            size = len(node.ids)
            assert size == len(node.slots) > 0, f"{node!r}: {size} ids, {len(node.slots)} slots"
            assert node.parent is not None and node.parent.children[node.ids[0]] is node, f"{node!r} is misplaced"
            assert not node.parent.ids or node.parent.lock_count >= node.lock_count >= 0, (
                f"{node!r}: locks of its parent"
            )
            num_tokens += size
            slots.update(node.slots)
            if node.lock_count == 0:
                num_evictable += size
                if not node.children:
                    leaves.add(node)
        assert num_tokens == self.num_tokens, f"{num_tokens} tokens, counted {self.num_tokens}"
        assert num_tokens == len(slots), f"{num_tokens} tokens in {len(slots)} slots"
        assert num_evictable == self.num_evictable, f"{num_evictable} evictable, counted {self.num_evictable}"
        assert leaves == self._unlocked_leaves, f"{len(leaves)} unlocked leaves, kept {len(self._unlocked_leaves)}"

    def _new_node(self, parent: RadixNode | None, ids: Ints, slots: Ints) -> RadixNode:
        self._num_created += 1
        return RadixNode(parent, ids, slots, serial=self._num_created, now=self._clock)

    def _descend(self, node: RadixNode, key: Ints) -> tuple[RadixNode, int]:
        """Follow `key` below `node` as far as the tree goes, splitting the edge in which it ends; touches the nodes."""
        self._clock += 1
        now, pos, size = self._clock, 0, len(key)
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

    def _split(self, lower: RadixNode, at: int) -> RadixNode:
        """Give the first `at` tokens of `lower` to a new parent, which is returned; `lower` stays the same object."""
        above = lower.parent
        assert above is not None and 0 < at < len(lower.ids), f"split of {lower!r} at {at}"
        upper = self._new_node(above, lower.ids[:at], lower.slots[:at])
        upper.lock_count, upper.hits = lower.lock_count, lower.hits
        upper.created, upper.last_access = lower.created, lower.last_access
        del lower.ids[:at], lower.slots[:at]
        above.children[upper.ids[0]] = upper
        upper.children[lower.ids[0]] = lower
        lower.parent = upper
        return upper

    def _remove(self, leaf: RadixNode) -> RadixNode:
        """Unlink an unlocked leaf and return its parent, which counts as used when its child was."""
        parent = leaf.parent
        assert parent is not None and leaf.lock_count == 0 and not leaf.children, f"{leaf!r} cannot be removed"
        del parent.children[leaf.ids[0]]
        self._unlocked_leaves.discard(leaf)
        parent.last_access = max(parent.last_access, leaf.last_access)
        if not parent.children and parent.lock_count == 0 and parent is not self.root:
            self._unlocked_leaves.add(parent)
        return parent
