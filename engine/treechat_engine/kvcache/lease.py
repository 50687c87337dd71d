"""A lease: a running request's hold on its cached prefix and on its own new slots."""

from __future__ import annotations

from array import array

from treechat_engine.kvcache.radix_node import Ints, RadixNode, Rank
from treechat_engine.kvcache.slots import extents_of


class Lease:
    """Slots of one running request, from `KVCache.lease`.

    node: the tree's node at the end of the committed tokens.
    slots: one slot per token of the path, by position. The first `committed_len` belong to the tree, the others are
        private.
    extents: the same slots as (first slot, length), maximal and in order.
    cached_len: tokens found at the start; the last `restored_len` of them were in a lower tier.
    version: changes if `commit` rewrites slots that were already given out.
    prompt_len: length of the ids that the lease was taken for.
    bound: the lease evicts only KV below this rank; None: any KV.
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
        """Append private slots. The first new extent joins the last one if they are adjacent."""
        self.slots.extend(slots)
        extents = extents_of(slots)
        if self.extents and extents and sum(self.extents[-1]) == extents[0][0]:
            start, length = self.extents.pop()
            extents[0] = (start, length + extents[0][1])
        self.extents.extend(extents)

    def rewrite(self, pos: int, slots: Ints) -> None:
        """Replace the slots from position `pos` on by `slots`."""
        self.slots[pos : pos + len(slots)] = slots
        self.extents = extents_of(self.slots)
        self.version += 1

    def end(self) -> None:
        """Drop the slots, which no longer belong to the lease."""
        self.released = True
        self.slots, self.extents = array("q"), []
