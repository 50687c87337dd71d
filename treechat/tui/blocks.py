"""The transcript's blocks: one per message, a header line, the body, a line of figures, an empty line."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from textual.strip import Strip

from treechat.chat.structure import Structure
from treechat.tree import Turn
from treechat.tui.bodies import Bodies
from treechat.tui.strips import row_strip
from treechat.tui.thinking import GrowingReply

AROUND = 2
"""Lines of a block beside its body: header and empty line."""


class Block:
    """One message of the path. Its height is a guess until it was measured; a growing reply keeps its wrapped rows."""

    __slots__ = ("growing", "height", "is_exact", "node_id")

    def __init__(self, node_id: str, height: int) -> None:
        self.node_id = node_id
        self.height = height
        self.is_exact = False
        self.growing: GrowingReply | None = None


class Blocks:
    """The messages of one path, their heights and where each begins. Draws bodies; knows nothing of scrolling."""

    def __init__(self, chat: Structure, node_ids: list[str], cache: Bodies, before: Blocks | None = None) -> None:
        """before: the path shown until now; a message that is on both keeps the height that it had."""
        self.chat = chat
        self.cache = cache
        known = {block.node_id: block.height for block in before.items} if before else {}
        texts = chat.texts(i for i in node_ids if i not in known)
        guesses = {i: cache.estimate(text) + AROUND + self._has_figures(i) for i, text in texts.items()} | known
        self.items: list[Block] = [Block(i, guesses[i]) for i in node_ids]
        self.index_of = {node_id: index for index, node_id in enumerate(node_ids)}
        self.tops: list[int] = []
        self.place()

    def place(self) -> None:
        """Add the heights up again. `tops` has one entry more than there are blocks: the end of the last."""
        self.tops = [0, *accumulate(block.height for block in self.items)]

    @property
    def node_ids(self) -> list[str]:
        return [block.node_id for block in self.items]

    @property
    def total(self) -> int:
        return self.tops[-1]

    def at(self, line: int) -> int:
        """Index of the block that line is in."""
        return max(min(bisect_right(self.tops, line) - 1, len(self.items) - 1), 0)

    def measure(self, index: int) -> int:
        """Render a block for its real height, and return by how much it differs from the guess."""
        block = self.items[index]
        if block.is_exact:
            return 0
        height = self.body_len(block) + AROUND + self._has_figures(block.node_id)
        delta, block.height, block.is_exact = height - block.height, height, True
        return delta

    def body_len(self, block: Block) -> int:
        return len(self._grown(block).rows) if self._is_growing(block) else len(self._body(block))

    def body_strip(self, block: Block, line: int) -> Strip:
        """One line of the body."""
        if self._is_growing(block):
            rows = self._grown(block).rows
            return row_strip(rows[line]) if line < len(rows) else Strip([])
        strips = self._body(block)
        return strips[line] if line < len(strips) else Strip([])

    def append(self, node_id: str, text: str) -> bool:
        """More text of a growing reply; whether it is on this path. Costs the same however long the reply is."""
        index = self.index_of.get(node_id)
        if index is None:
            return False
        block = self.items[index]
        if block.growing is None:
            self._grown(block)
        else:
            block.growing.append(text)
        delta = len(self._grown(block).rows) + AROUND + self._has_figures(node_id) - block.height
        if delta:
            block.height += delta
            if index == len(self.items) - 1:
                self.tops[-1] += delta
            else:
                self.place()
        return True

    def forget(self, node_id: str) -> bool:
        """The message's text or state changed: measure it again. Whether it is on this path."""
        index = self.index_of.get(node_id)
        if index is not None:
            self.items[index].is_exact = False
            self.items[index].growing = None
        return index is not None

    def turn(self, node_id: str) -> Turn | None:
        return self.chat.turn(node_id) if self.chat.tree[node_id].role == "assistant" else None

    def _has_figures(self, node_id: str) -> int:
        return int(self.chat.tree[node_id].role == "assistant")

    def _is_growing(self, block: Block) -> bool:
        return block.node_id in self.chat.replies

    def _grown(self, block: Block) -> GrowingReply:
        if block.growing is None:
            block.growing = self.cache.growing(self.chat, block.node_id)
        return block.growing

    def _body(self, block: Block) -> list[Strip]:
        return self.cache.message(self.chat, block.node_id)
