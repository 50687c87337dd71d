"""A running request's hold on its cached prefix and on its own new slots."""

from __future__ import annotations

from array import array

from treechat_engine.kvcache.radix_node import Ints, RadixNode, Rank
from treechat_engine.kvcache.slots import extents_of


class Lease:
    """Made by `KVCache.lease`.

    slots: one per token of the path, index = position. The first `committed_len` are the tree's, the rest private.
    runs: the same slots as maximal contiguous runs (first slot, length). cached_len: tokens found at the start, the
    last `restored_len` of them in a lower tier. version: changes whenever slots already handed out were rewritten,
    which only `commit` does. prompt_len: length of the ids that the lease was taken for. bound: the rank that what it
    evicts must be below; None for a lease that may evict anything.
    """

    def __init__(
        self, node: RadixNode, slots: Ints, prompt_len: int, restored_len: int = 0, bound: Rank | None = None
    ) -> None:
        self.node = node
        self.slots = slots
        self.extents = extents_of(slots)
        self.cached_len = self.committed_len = len(slots)
        self.restored_len = restored_len
        self.prompt_len = prompt_len
        self.bound = bound
        self.version = 0
        self.released = False

    def extend(self, slots: Ints) -> None:
        """Append private slots, joining the first new run to the last one where they touch."""
        self.slots.extend(slots)
        extents = extents_of(slots)
        if self.extents and extents and sum(self.extents[-1]) == extents[0][0]:
            start, length = self.extents.pop()
            extents[0] = (start, length + extents[0][1])
        self.extents.extend(extents)

    def rewrite(self, pos: int, slots: Ints) -> None:
        """Put `slots` in place of those from position `pos` on."""
        self.slots[pos : pos + len(slots)] = slots
        self.extents = extents_of(self.slots)
        self.version += 1

    def end(self) -> None:
        """Forget the slots, which are no longer the lease's."""
        self.released = True
        self.slots, self.extents = array("q"), []
