"""What the tree of cached prefixes is made of: edges of token ids, each with its slots in one tier."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

Ints: TypeAlias = "array[int]"

# Where a node's KV is. What lies below a node is never in a higher tier than the node itself.
DEVICE, HOST, DISK = 0, 1, 2
NUM_TIERS = 3
# Items of the slices in which a difference is looked for: memory for large ones costs more than reading them. A match
# that splits 100,000 ids takes 255 us in place of 330 (12 rounds of each in turn, AMD EPYC).
_BLOCK_LEN = 4096

# Slots by tier, as a change of the tree gives them back.
Freed: TypeAlias = list[Ints]


class RadixNode:
    """One edge of the tree with the node at its end.

    A node that is locked keeps its identity and the length of its path: a split gives the upper half to a new node, and
    the lower half stays this object. A node that is not locked may be split or removed by the next `evict`.

    tier: which pool `slots` belong to. num_same: children in the same tier. is_fork: it has, or once had, two children.
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


# A leaf of a lower rank is evicted first.
Rank: TypeAlias = tuple[float, ...]
Ranking: TypeAlias = Callable[[RadixNode], Rank]


class Match(NamedTuple):
    """The longest cached prefix: the node that ends exactly at it (the root for none) and its length in tokens, both in
    the device's tier; and the nodes of lower tiers that go on from there, top down."""

    node: RadixNode
    len: int
    lower_nodes: list[RadixNode]


class InsertResult(NamedTuple):
    """The node that ends at the last inserted id; how many of the given ids had KV in the tree before, in the device's
    tier; the slots of lower tiers that the given ones took the place of."""

    node: RadixNode
    num_existing: int
    freed: Freed


def no_slots() -> Freed:
    """An empty array of slots for each tier."""
    return [array("q") for _ in range(NUM_TIERS)]


def as_ints(values: Sequence[int]) -> Ints:
    """`values` as an `array('q')`; the same object where it is one already."""
    return values if isinstance(values, array) and values.typecode == "q" else array("q", values)


def common_len(edge: Ints, key: Ints, start: int, at: int = 0) -> int:
    """Number of leading items in which `edge[at:]` and `key[start:]` agree. Slices are compared, which is one loop in
    C, and where they differ, blocks of them and halves of a block."""
    size = min(len(edge) - at, len(key) - start)
    if size == len(edge):
        if edge == (key if size == len(key) else key[start : start + size]):
            return size
    elif edge[at : at + size] == (key if size == len(key) else key[start : start + size]):
        return size
    low, high = 0, size  # the first `low` items agree, the first `high` do not
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
