"""The transcript's blocks: one per message, a header line, the body, a line of figures, an empty line."""

from __future__ import annotations

from textual.strip import Strip

from treechat.chat.session import Chat
from treechat.tree import PREVIEW_LEN, Turn
from treechat.tui.transcript.heights import Heights
from treechat.tui.transcript.markdown import row_strip
from treechat.tui.transcript.messages import MessageCache
from treechat.tui.transcript.streaming_reply import StreamingReply

AROUND = 2
"""Lines of a block beside its body: header and empty line."""

READ_AT_ONCE = 1_000
"""Messages whose texts are read to guess their heights; where a path has more new ones, previews must do."""

LONG_BODY = 6
"""Lines of a body of which nothing is known but that its preview was cut."""


class Blocks:
    """The messages of one path, their heights and where each begins. Draws bodies; knows nothing of scrolling.

    Heights are guesses until they were measured. Growing replies keep their wrapped rows.
    """

    def __init__(self, chat: Chat, node_ids: list[str], cache: MessageCache, before: Blocks | None = None) -> None:
        """before: the path shown until now; a message that is on both keeps the height that it had."""
        self.chat = chat
        self.cache = cache
        self.node_ids = node_ids
        self.index_of = {node_id: index for index, node_id in enumerate(node_ids)}
        num = num_common(before.node_ids, node_ids) if before else 0
        known = before.tops.first(num) if before else []
        self.tops: Heights = Heights(known + self._guesses(node_ids[num:]))
        self._exact: set[int] = set()
        self._growing: dict[str, tuple[StreamingReply, int]] = {}

    def __len__(self) -> int:
        return len(self.node_ids)

    @property
    def total(self) -> int:
        return self.tops.total

    def index_at(self, line: int) -> int:
        """Index of the block that line is in."""
        return self.tops.index_at(line)

    def height(self, index: int) -> int:
        return self.tops.height(index)

    def _guesses(self, node_ids: list[str]) -> list[int]:
        if len(node_ids) <= READ_AT_ONCE:
            texts = self.chat.texts(node_ids)
            return [self.cache.estimate(texts[i]) + AROUND + self._has_figures(i) for i in node_ids]
        width = self.cache.width
        return [
            (LONG_BODY if len(node.preview) == PREVIEW_LEN else len(node.preview) // width + 1)
            + (AROUND + 1 if node.role == "assistant" else AROUND)
            for node in map(self.chat.tree.nodes.__getitem__, node_ids)
        ]

    def measure(self, index: int) -> int:
        """Render a block for its real height, and return by how much it differs from the guess."""
        if index in self._exact:
            return 0
        self._exact.add(index)
        return self._change(index)

    def _change(self, index: int) -> int:
        node_id, before = self.node_ids[index], self.tops.height(index)
        self.tops.change(index, self.body_len(node_id) + AROUND + self._has_figures(node_id))
        return self.tops.height(index) - before

    def body_len(self, node_id: str) -> int:
        return len(self._streaming(node_id).rows) if self._is_growing(node_id) else len(self._body(node_id))

    def body_strip(self, node_id: str, line: int) -> Strip:
        """One line of the body."""
        if self._is_growing(node_id):
            rows = self._streaming(node_id).rows
            return row_strip(rows[line]) if line < len(rows) else Strip([])
        strips = self._body(node_id)
        return strips[line] if line < len(strips) else Strip([])

    def grow(self, index: int) -> int:
        """There is more of a growing reply; by how many lines. Costs the same however long the reply is."""
        return self._change(index) if self._is_growing(self.node_ids[index]) else 0

    def forget(self, node_id: str) -> bool:
        """The message's text or state changed: measure it again. Whether it is on this path."""
        index = self.index_of.get(node_id)
        if index is not None:
            self._exact.discard(index)
            self._growing.pop(node_id, None)
        return index is not None

    def turn(self, node_id: str) -> Turn | None:
        return self.chat.turn(node_id) if self.chat.tree[node_id].role == "assistant" else None

    def _has_figures(self, node_id: str) -> int:
        return int(self.chat.tree[node_id].role == "assistant")

    def _is_growing(self, node_id: str) -> bool:
        return node_id in self.chat.replies

    def _streaming(self, node_id: str) -> StreamingReply:
        """The rows so far. The text is asked for anew each time: events may lag behind it."""
        text = self.chat.text(node_id)
        grown, num_chars = self._growing.get(node_id) or (self.cache.growing(self.chat, node_id), len(text))
        if len(text) > num_chars:
            grown.append(text[num_chars:])
        self._growing[node_id] = grown, len(text)
        return grown

    def _body(self, node_id: str) -> list[Strip]:
        return self.cache.message(self.chat, node_id)


def num_common(path: list[str], other: list[str]) -> int:
    """How many nodes two paths have in common, from their roots."""
    low, high = 0, min(len(path), len(other))
    # By halves: lists are compared much faster than nodes one by one.
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if path[low:middle] == other[low:middle] else (low, middle - 1)
    return low
