"""The blocks of the transcript, one per message: a header line, the body, a caption line, an empty line."""

from __future__ import annotations

from textual.strip import Strip

from treechat.chat.session import Chat
from treechat.tree import PREVIEW_LEN, Turn
from treechat.tui.transcript.heights import Heights
from treechat.tui.transcript.markdown import row_strip
from treechat.tui.transcript.messages import MessageCache
from treechat.tui.transcript.streaming_reply import StreamingReply

FRAME_LINES = 2
"""Lines of each block that are not its body: header and empty line."""

MAX_TEXTS_READ = 1_000
"""If a path has at most this many new messages, heights are estimated from their texts, else from their previews."""

CUT_BODY_LINES = 6
"""Estimated lines of a body whose preview was cut."""


class Blocks:
    """The messages of one path, their heights and their first lines. Draws bodies; does not scroll.

    A height is an estimate until it is measured. Streaming replies keep their wrapped rows.
    """

    def __init__(self, chat: Chat, node_ids: list[str], cache: MessageCache, before: Blocks | None = None) -> None:
        """Estimate the heights.

        chat: the conversation.
        node_ids: the path, from a root.
        cache: renders the bodies.
        before: the blocks of the previous path; messages that both paths share keep their heights.
        """
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
        """Return the index of the block that contains the line."""
        return self.tops.index_at(line)

    def height(self, index: int) -> int:
        return self.tops.height(index)

    def _guesses(self, node_ids: list[str]) -> list[int]:
        if len(node_ids) <= MAX_TEXTS_READ:
            texts = self.chat.nodes.texts(node_ids)
            return [self.cache.estimate(texts[i]) + FRAME_LINES + self._has_caption(i) for i in node_ids]
        width = self.cache.width
        return [
            (CUT_BODY_LINES if len(node.preview) == PREVIEW_LEN else len(node.preview) // width + 1)
            + (FRAME_LINES + 1 if node.role == "assistant" else FRAME_LINES)
            for node in map(self.chat.tree.nodes.__getitem__, node_ids)
        ]

    def measure(self, index: int) -> int:
        """Render a block, set its height, and return the difference from the previous height in lines."""
        if index in self._exact:
            return 0
        self._exact.add(index)
        return self._change(index)

    def _change(self, index: int) -> int:
        node_id, before = self.node_ids[index], self.tops.height(index)
        self.tops.change(index, self.body_len(node_id) + FRAME_LINES + self._has_caption(node_id))
        return self.tops.height(index) - before

    def body_len(self, node_id: str) -> int:
        return len(self._streaming(node_id).rows) if self._is_growing(node_id) else len(self._body(node_id))

    def body_strip(self, node_id: str, line: int) -> Strip:
        """Return one line of the body; an empty strip past its end."""
        if self._is_growing(node_id):
            rows = self._streaming(node_id).rows
            return row_strip(rows[line]) if line < len(rows) else Strip([])
        strips = self._body(node_id)
        return strips[line] if line < len(strips) else Strip([])

    def grow(self, index: int) -> int:
        """Take in new text of a streaming reply and return the added lines. The cost does not depend on its length."""
        return self._change(index) if self._is_growing(self.node_ids[index]) else 0

    def forget(self, node_id: str) -> bool:
        """Measure a changed message again at its next use. Return whether it is on this path."""
        index = self.index_of.get(node_id)
        if index is not None:
            self._exact.discard(index)
            self._growing.pop(node_id, None)
        return index is not None

    def turn(self, node_id: str) -> Turn | None:
        return self.chat.turn(node_id) if self.chat.tree[node_id].role == "assistant" else None

    def _has_caption(self, node_id: str) -> int:
        return int(self.chat.tree[node_id].role == "assistant")

    def _is_growing(self, node_id: str) -> bool:
        return node_id in self.chat.replies

    def _streaming(self, node_id: str) -> StreamingReply:
        """Return the rows so far. Reads the current text each time, because events may lag behind the text."""
        text = self.chat.text(node_id)
        grown, num_chars = self._growing.get(node_id) or (self.cache.growing(self.chat, node_id), len(text))
        if len(text) > num_chars:
            grown.append(text[num_chars:])
        self._growing[node_id] = grown, len(text)
        return grown

    def _body(self, node_id: str) -> list[Strip]:
        return self.cache.message(self.chat, node_id)


def num_common(path: list[str], other: list[str]) -> int:
    """Return the number of leading nodes that two paths share."""
    low, high = 0, min(len(path), len(other))
    # Bisection: comparing list slices is much faster than comparing nodes one by one.
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if path[low:middle] == other[low:middle] else (low, middle - 1)
    return low
