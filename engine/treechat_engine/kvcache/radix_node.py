"""The nodes of the tree of cached prefixes: edges of token ids, each with its slots in one tier."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

Ints: TypeAlias = "array[int]"

# The tier of a node's KV. The nodes below a node are never in a higher tier than it.
DEVICE, HOST, DISK = 0, 1, 2
NUM_TIERS = 3
# Compare two long arrays in blocks of this many items: allocating a large slice costs more than reading it. A match
# that splits 100,000 ids takes 255 us instead of 330 (12 alternating rounds, AMD EPYC).
_BLOCK_LEN = 4096

# The slots that a change of the tree frees, by tier.
Freed: TypeAlias = list[Ints]


class RadixNode:
    """One edge of the tree and the node at its end.

    A locked node keeps its identity and the length of its path: a split moves the upper half to a new node, and this
    object
    stays the lower half. The next `evict` may split or remove an unlocked node.

    parent: None for the root.
    ids: the token ids of the edge.
    slots: one slot per id.
    serial: the number of the node in order of creation.
    now: the tree's present time, a count of matches and inserts.
    tier: the pool that `slots` belong to.
    num_same: children in the same tier.
    is_fork: whether the node has, or once had, two children.
    """

    __slots__ = (
        "children",
        "created",
        "hits",
        "ids",
        "is_fork",
        "last_access",
        "lock_count",
        "num_same",
        "parent",
        "serial",
        "slots",
        "tier",
    )

    def __init__(self, parent: RadixNode | None, ids: Ints, slots: Ints, serial: int, now: int, tier: int) -> None:
        self.parent = parent
        self.children: dict[int, RadixNode] = {}
        self.ids = ids
        self.slots = slots
        self.serial = serial
        self.tier = tier
        self.num_same = 0
        self.is_fork = False
        self.lock_count = 0
        self.created = now
        self.last_access = now
        self.hits = 0

    def __repr__(self) -> str:
        return (
            f"RadixNode({self.serial}, {len(self.ids)} tokens in tier {self.tier}, {len(self.children)} children, "
            f"{self.lock_count} locks)"
        )


# The leaf of the lowest rank is evicted first.
Rank: TypeAlias = tuple[float, ...]
Ranking: TypeAlias = Callable[[RadixNode], Rank]


class Match(NamedTuple):
    """The longest cached prefix.

    node: the node at its end on the device; the root if there is none.
    len: its length on the device, in tokens.
    lower_nodes: the nodes of lower tiers that continue it, top down.
    """

    node: RadixNode
    len: int
    lower_nodes: list[RadixNode]


class InsertResult(NamedTuple):
    """The result of an insert.

    node: the node at the last inserted id.
    num_existing: how many of the given ids had KV on the device before.
    freed: the slots of lower tiers that the given slots replaced.
    """

    node: RadixNode
    num_existing: int
    freed: Freed


def no_slots() -> Freed:
    """Return an empty array of slots for each tier."""
    return [array("q") for _ in range(NUM_TIERS)]


def as_ints(values: Sequence[int]) -> Ints:
    """Return `values` as an `array('q')`: the same object if it already is one."""
    return values if isinstance(values, array) and values.typecode == "q" else array("q", values)


def common_len(edge: Ints, key: Ints, start: int, at: int = 0) -> int:
    """Return the number of leading items that are equal in `edge[at:]` and `key[start:]`.

    Compares whole slices, each in one loop in C. If they differ, compares blocks, then halves of a block.
    """
    size = min(len(edge) - at, len(key) - start)
    if size == len(edge):
        if edge == (key if size == len(key) else key[start : start + size]):
            return size
    elif edge[at : at + size] == (key if size == len(key) else key[start : start + size]):
        return size
    low, high = 0, size  # the first `low` items are equal, the first `high` items are not
    if size > _BLOCK_LEN:
        while edge[at + low : at + low + _BLOCK_LEN] == key[start + low : start + low + _BLOCK_LEN]:
            low += _BLOCK_LEN
        high = min(size, low + _BLOCK_LEN)
    while high - low > 1:
        mid = (low + high) // 2
        if edge[at + low : at + mid] == key[start + low : start + mid]:
            low = mid
        else:
            high = mid
    return low
