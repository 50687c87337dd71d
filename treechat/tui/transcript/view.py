"""The transcript: one path in one scroll view. Only visible messages are rendered; the rest are heights."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.strip import Strip

from treechat.chat.session import Chat
from treechat.tree import Node
from treechat.tui.bindings import PANE_BINDINGS
from treechat.tui.safe_text import fit
from treechat.tui.transcript.blocks import Blocks, num_common
from treechat.tui.transcript.captions import ending_caption, header_notes, turn_caption
from treechat.tui.transcript.messages import MessageCache
from treechat.tui.widgets.line_scroll import LineScroll

GUTTER = 3
"""Cells at the left of every line: mark, bar, space."""

MAX_BODY_WIDTH = 100
"""Maximum width of a body, in cells: longer lines are hard to read."""

Anchor = Literal["end", "fork", "keep"]
NAMES = {"user": "You", "assistant": "Assistant", "system": "System"}


class Transcript(LineScroll, can_focus=True):
    """The messages from the root to one node."""

    BINDINGS = PANE_BINDINGS
    prefix = "transcript"
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"transcript--{name}"
        for name in ("user", "assistant", "system", "bar", "cursor", "notes", "figures", "warning", "empty", "new")
    }

    @dataclass
    class Pointed(Message):
        """A message was clicked."""

        node_id: str

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.cache = MessageCache()
        self.blocks: Blocks | None = None
        self.cursor_id: str | None = None
        self.empty_text = ""
        self._marked: frozenset[str] = frozenset()
        self._is_settling = False

    # Content

    def show(self, chat: Chat, node_ids: list[str], anchor: Anchor = "keep") -> None:
        """Show a path.

        chat: the conversation.
        node_ids: the path, from a root.
        anchor: `end` scrolls to its end; `fork` scrolls to the first message that the previous path does not have;
            `keep` does not scroll.
        """
        previous = self.blocks if self.blocks and self.blocks.chat is chat else None
        if self._use_theme():
            previous = None
        self.blocks = Blocks(chat, node_ids, self.cache, previous) if node_ids else None
        common = num_common(previous.node_ids, node_ids) if previous else 0
        self._resize()
        if self.blocks is None:
            self.scroll_to(y=0, animate=False, force=True)
        elif anchor == "end" or (anchor == "fork" and previous is None):
            self.to_end()
        elif anchor == "fork" and common < len(node_ids):
            self._fork_into_sight(common)
        self._settle()
        self.refresh()

    def grow(self, node_id: str) -> None:
        """Draw the new text of a streaming reply."""
        index = self.blocks.index_of.get(node_id) if self.blocks else None
        if index is None or self.blocks is None:
            return
        follows, top = self.is_at_end, round(self.scroll_y)
        begins_at, ended_at = self.blocks.tops[index] - top, self.blocks.tops[index + 1] - top
        delta = self.blocks.grow(index)
        if delta:
            self._resize()
            if follows:
                self.to_end()
        # Redraw the line that counts the thoughts, the previous last row, and all lines below it that moved.
        self.redraw_lines(begins_at + 1, min(begins_at + 3, ended_at))
        self.redraw_lines(ended_at - 3, self.size.height if delta else ended_at)

    def refresh_message(self, node_id: str) -> None:
        """Draw a message again after its text, label or state changed."""
        follows = self.is_at_end
        if self.blocks is not None and self.blocks.forget(node_id):
            self._settle()
            if follows:
                self.to_end()
            self.refresh()

    def unfold(self, node_id: str, index: int | None = None) -> bool:
        """Open or fold parts of a message: the part at `index`, or all for None. Return whether it has any."""
        if self.blocks is None or not self.cache.toggle(self.blocks.chat, node_id, index):
            return False
        if self.blocks.forget(node_id):
            # The lines above keep their place, the clicked line included.
            self.blocks.measure(self.blocks.index_of[node_id])
            self._resize()
            self._settle()
        self.refresh()
        return True

    def point(self, node_id: str | None, *, scroll: bool = True) -> None:
        """Put the cursor on a message and scroll to its beginning."""
        left_id, self.cursor_id = self.cursor_id, node_id
        index = self.blocks.index_of.get(node_id) if self.blocks and node_id else None
        if scroll and index is not None and self.blocks is not None:
            self.blocks.measure(index)
            self._resize()
            top, end = self.blocks.tops[index], self.blocks.tops[index + 1]
            here, height = round(self.scroll_y), self.size.height
            if top < here or end - top > height:
                self.to_line(top)
            elif end > here + height:
                self.to_line(end - height)
        self._settle()
        self._refresh_blocks({left_id, node_id} if left_id != node_id else ())

    def mark(self, node_ids: Iterable[str]) -> None:
        """Mark exactly these messages in the gutter."""
        marked = frozenset(node_ids)
        if marked != self._marked:
            changed, self._marked = marked ^ self._marked, marked
            self._refresh_blocks(changed)

    def scroll_within(self, node_id: str | None, direction: int) -> bool:
        """Scroll half a page if that shows more of the message; return whether it did.

        direction: 1 for down, -1 for up.
        """
        index = self.blocks.index_of.get(node_id) if self.blocks and node_id else None
        if index is None or self.blocks is None:
            return False
        top, end = self.blocks.tops[index], self.blocks.tops[index + 1]
        here, height = round(self.scroll_y), self.size.height
        if end - top <= height or not (end > here + height if direction > 0 else top < here):
            return False
        self.to_line(here + direction * max(height // 2, 1))
        return True

    # Scrolling

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._settle()

    def on_resize(self) -> None:
        if self.blocks is None:
            return
        follows, index = self.is_at_end, self.blocks.index_at(round(self.scroll_y))
        if self._use_theme():
            self.blocks = Blocks(self.blocks.chat, self.blocks.node_ids, self.cache)
            self._resize()
            self.to_line(self.blocks.tops[index])
        if follows:
            self.to_end()
        self._settle()

    def restyle(self) -> None:
        """Draw again after the theme changed."""
        if self._use_theme() and self.blocks is not None:
            self.refresh()

    def _use_theme(self) -> bool:
        width = min(max(self.scrollable_content_region.width - GUTTER - 1, 8), MAX_BODY_WIDTH)
        theme = self.app.current_theme
        return self.cache.use(width, theme.name, self.app.theme_variables, theme.dark)

    def _refresh_blocks(self, node_ids: Collection[str | None]) -> None:
        """Redraw the visible lines of these messages."""
        if self.blocks is None or not node_ids:
            return
        top = round(self.scroll_y)
        for index in range(self.blocks.index_at(top), self.blocks.index_at(top + self.size.height) + 1):
            if self.blocks.node_ids[index] in node_ids:
                self.redraw_lines(self.blocks.tops[index] - top, self.blocks.tops[index + 1] - top)

    def _resize(self) -> None:
        self.num_lines = self.blocks.total if self.blocks else 0

    def to_end(self) -> None:
        """Scroll to the last line."""
        if self.blocks is not None:
            # Estimated heights would misplace the end: measure a screenful of blocks from the last one up.
            need, index = self.size.height, len(self.blocks) - 1
            while need > 0 and index >= 0:
                self.blocks.measure(index)
                need -= self.blocks.height(index)
                index -= 1
            self._resize()
        self.to_line(self.max_scroll_y)

    def _fork_into_sight(self, index: int) -> None:
        assert self.blocks is not None
        top, here, height = self.blocks.tops[index], round(self.scroll_y), self.size.height
        if not here <= top <= here + height - 4:
            self.to_line(max(top - height // 4, 0))

    def _settle(self) -> None:
        """Measure the visible blocks. If one that begins above changes its height, the visible lines stay."""
        if self.blocks is None or self._is_settling or not self.size.height:
            return
        self._is_settling = True
        try:
            top = round(self.scroll_y)
            index = self.blocks.index_at(top)
            while index < len(self.blocks) and self.blocks.tops[index] < top + self.size.height:
                if delta := self.blocks.measure(index):
                    self._resize()
                    if self.blocks.tops[index] < top:
                        top = max(top + delta, 0)
                        self.to_line(top)
                index += 1
        finally:
            self._is_settling = False

    # Drawing

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        line = y + round(self.scroll_y)
        if self.blocks is None:
            return self._empty_line(y, width)
        if line >= self.blocks.total:
            return Strip.blank(width, self.rich_style)
        index = self.blocks.index_at(line)
        return self.strip_of(self._block_line(index, line - self.blocks.tops[index], width), width)

    def _block_line(self, index: int, line: int, width: int) -> list[Segment]:
        assert self.blocks is not None
        node, height = self.blocks.chat.tree[self.blocks.node_ids[index]], self.blocks.height(index)
        if line == height - 1:
            return []
        is_cursor = node.id == self.cursor_id and self.has_focus
        bar = "▌" if is_cursor else "▎" if node.role == "user" else " "
        bar_style = self.style_of("cursor" if is_cursor else "bar")
        mark = Segment("┊", self.style_of("new")) if node.id in self._marked else Segment(" ")
        lead = [mark, Segment(bar, bar_style), Segment(" ")]
        if line == 0:
            return [*lead, *self._header(node, min(width, self.cache.width + GUTTER) - GUTTER)]
        if node.role == "assistant" and line == height - 2:
            return [*lead, *self._figures(node, width - GUTTER)]
        body = self.blocks.body_strip(node.id, line - 1)
        if node.role == "system":
            body = body.apply_style(self.style_of("system"))
        return [*lead, *body]

    def _header(self, node: Node, width: int) -> list[Segment]:
        assert self.blocks is not None
        left, right = header_notes(self.blocks.chat, node.id)
        name = NAMES[node.role]
        room = max(width - len(name) - cell_len(right), 0)
        return [
            Segment(name, self.style_of(node.role)),
            Segment(fit(left, room), self.style_of("notes")),
            Segment(right, self.style_of("notes")),
        ]

    def _figures(self, node: Node, width: int) -> list[Segment]:
        assert self.blocks is not None
        if node.id in self.blocks.chat.replies:
            return [Segment("▌ writing · esc stops", self.style_of("figures"))]
        turn = self.blocks.turn(node.id)
        warning = fit(ending_caption(node, turn), width).rstrip()
        figures = turn_caption(turn) if turn else ""
        between = " · " if warning and figures else ""
        figures = fit(figures, width - cell_len(warning + between)).rstrip()
        return [
            Segment(warning, self.style_of("warning")),
            Segment(f"{between}{figures}", self.style_of("figures")),
        ]

    def _empty_line(self, y: int, width: int) -> Strip:
        lines = self.empty_text.split("\n")
        first = max((self.size.height - len(lines)) // 2, 0)
        text = lines[y - first] if 0 <= y - first < len(lines) else ""
        pad = " " * max((width - max(map(cell_len, lines))) // 2, 0)
        return self.strip_of([Segment(pad), Segment(text, self.style_of("empty"))], width)

    # Mouse

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is not None and self.blocks is not None:
            line = offset.y + round(self.scroll_y)
            if line < self.blocks.total:
                index = self.blocks.index_at(line)
                node_id = self.blocks.node_ids[index]
                part_index = self.cache.fold_at(self.blocks.chat, node_id, line - self.blocks.tops[index] - 1)
                if part_index is not None:
                    self.unfold(node_id, part_index)
                self.post_message(self.Pointed(node_id))
