"""Siblings in columns, as many as fit. Each column scrolls separately, and follows a streaming reply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.strip import Strip

from treechat.chat.session import Chat
from treechat.tui.safe_text import fit
from treechat.tui.transcript.captions import format_speed
from treechat.tui.transcript.markdown import row_strip
from treechat.tui.transcript.messages import MessageCache
from treechat.tui.transcript.streaming_reply import StreamingReply
from treechat.tui.widgets.line_widget import LineWidget

MIN_COLUMN_WIDTH = 24
"""Minimum width of a column, in cells. Columns without room are off screen."""

HEADER_LINES = 3
"""Lines above the texts: name and state, figures, a rule."""

STATES = {"stopped": "stopped", "interrupted": "interrupted", "failed": "failed", "streaming": "elsewhere"}


class SiblingColumn:
    """One sibling.

    node_id: the sibling.
    top: the first visible line of its text.
    follows: keep the end visible while the reply streams.
    growing: the rows of a streaming reply.
    num_chars: characters of the text in `growing`.
    """

    __slots__ = ("follows", "growing", "node_id", "num_chars", "top")

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.top = 0
        self.follows = True
        self.growing: StreamingReply | None = None
        self.num_chars = 0


class SiblingColumns(LineWidget, can_focus=True):
    """Draws the columns. The screen selects the chosen one."""

    prefix = "columns"
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"columns--{name}" for name in ("name", "chosen", "figures", "rule")}

    @dataclass
    class Pointed(Message):
        """A column was clicked."""

        index: int
        is_twice: bool

    def __init__(self, chat: Chat, node_ids: Sequence[str]) -> None:
        super().__init__()
        self.chat = chat
        self.columns = [SiblingColumn(node_id) for node_id in node_ids]
        self.cache = MessageCache()
        self.index = 0
        self.first = 0

    # Columns

    def choose(self, index: int) -> None:
        """Choose a column and scroll to it."""
        self.index = min(max(index, 0), len(self.columns) - 1)
        num = self.num_shown
        self.first = min(max(self.first, self.index - num + 1), self.index, len(self.columns) - num)
        self.refresh()

    @property
    def chosen(self) -> SiblingColumn:
        return self.columns[self.index]

    def drop(self, node_id: str) -> None:
        """Remove a column. There must be another one."""
        self.columns = [column for column in self.columns if column.node_id != node_id]
        self._fit()

    def finish(self, node_id: str) -> None:
        """Draw a finished reply as Markdown, from its beginning."""
        for column in self.columns:
            if column.node_id == node_id:
                column.growing = None
                column.top, column.follows = (0, False) if column.follows else (column.top, False)
        self.refresh()

    def scroll(self, by: int, index: int | None = None) -> None:
        """Scroll a column by some lines. index: None for the chosen one."""
        column = self.chosen if index is None else self.columns[index]
        most = max(self._num_lines(column) - self.body_height, 0)
        column.top = min(max(self._top(column) + by, 0), most)
        column.follows = column.top == most and column.node_id in self.chat.replies
        self.refresh()

    def unfold(self) -> bool:
        """Open or fold the thoughts of the chosen column; return whether it has any."""
        self.chosen.growing = None
        self.refresh()
        return self.cache.toggle(self.chat, self.chosen.node_id)

    # Sizes

    @property
    def num_shown(self) -> int:
        """Columns that fit."""
        return max(min(len(self.columns), (self.size.width + 1) // (MIN_COLUMN_WIDTH + 1)), 1)

    @property
    def column_width(self) -> int:
        num = self.num_shown
        return max((self.size.width - (num - 1)) // num, 4)

    @property
    def body_height(self) -> int:
        return max(self.size.height - HEADER_LINES, 1)

    def on_resize(self) -> None:
        self._fit()

    def _fit(self) -> None:
        for column in self.columns:
            column.growing = None
        self.choose(self.index)

    # The texts

    def _text_width(self) -> int:
        return max(self.column_width - 2, 2)

    def _streaming(self, column: SiblingColumn) -> StreamingReply:
        """Return the rows so far. Reads the current text each time, because events may lag behind the text."""
        text = self.chat.text(column.node_id)
        self._use_theme()
        if column.growing is None or column.num_chars > len(text):
            column.growing = self.cache.growing(self.chat, column.node_id)
        elif len(text) > column.num_chars:
            column.growing.append(text[column.num_chars :])
        column.num_chars = len(text)
        return column.growing

    def _finished(self, column: SiblingColumn) -> list[Strip]:
        self._use_theme()
        return self.cache.message(self.chat, column.node_id)

    def _use_theme(self) -> None:
        theme = self.app.current_theme
        self.cache.use(self._text_width(), theme.name, self.app.theme_variables, theme.dark)

    def _num_lines(self, column: SiblingColumn) -> int:
        is_growing = column.node_id in self.chat.replies
        return len(self._streaming(column).rows if is_growing else self._finished(column))

    def _top(self, column: SiblingColumn) -> int:
        if column.follows and column.node_id in self.chat.replies:
            return max(self._num_lines(column) - self.body_height, 0)
        return column.top

    # Drawing

    def render_line(self, y: int) -> Strip:
        width = self.column_width
        segments: list[Segment] = []
        last = self.first + self.num_shown
        for index in range(self.first, min(last, len(self.columns))):
            segments.extend(self._cell(y, index, width))
            if index + 1 < last:
                segments.append(Segment("┼" if y == HEADER_LINES - 1 else "│", self.style_of("rule")))
        return Strip(segments).adjust_cell_length(self.size.width).apply_style(self.rich_style)

    def _cell(self, y: int, index: int, width: int) -> Strip:
        column = self.columns[index]
        if y == 0:
            return self._heading(index, width)
        if y == 1:
            return Strip([Segment(f" {fit(self._figures(column), width - 1)}", self.style_of("figures"))])
        if y == HEADER_LINES - 1:
            return Strip([Segment("─" * width, self.style_of("rule"))])
        line = y - HEADER_LINES + self._top(column)
        if column.node_id in self.chat.replies:
            rows = self._streaming(column).rows
            body = row_strip(rows[line]) if line < len(rows) else Strip([])
        else:
            strips = self._finished(column)
            body = strips[line] if line < len(strips) else Strip([])
        return Strip([Segment(" "), *body]).adjust_cell_length(width)

    def _heading(self, index: int, width: int) -> Strip:
        node_id = self.columns[index].node_id
        mark = "▸" if index == self.index else " "
        more = "‹ " if index == self.first > 0 else ""
        behind = len(self.columns) - self.first - self.num_shown
        beyond = f" +{behind} ›" if behind > 0 and index == self.first + self.num_shown - 1 else ""
        name = f"{mark}{more}{index + 1}/{len(self.columns)}"
        if node_id == self.chat.current_id:
            name += " ← here"
        room = width - cell_len(name) - cell_len(beyond)
        style = self.style_of("chosen" if index == self.index else "name")
        state = fit(f"  {self.state(node_id)}", room)
        return Strip([Segment(name, style), Segment(state, style), Segment(beyond, style)]).adjust_cell_length(
            width, style
        )

    def state(self, node_id: str) -> str:
        """Return the state of a sibling in a word or two; "" if complete."""
        if node_id in self.chat.replies:
            return "writing" if self.chat.replies[node_id].text else "waiting"
        turn = self.chat.turn(node_id)
        if turn is not None and turn.finish_reason == "length":
            return "cut off"
        return STATES.get(self.chat.tree[node_id].status, "")

    def _figures(self, column: SiblingColumn) -> str:
        turn = self.chat.turn(column.node_id)
        if turn is None:
            return ""
        parts = [f"{turn.completion_tokens:,} tokens"] if turn.completion_tokens else []
        if turn.tokens_per_s:
            parts.append(format_speed(turn.tokens_per_s))
        if not parts and turn.seed is not None:
            parts.append(f"seed {turn.seed}")
        return " · ".join(parts)

    # Mouse

    def _index_at(self, x: int) -> int | None:
        index = self.first + x // (self.column_width + 1)
        return index if index < min(self.first + self.num_shown, len(self.columns)) else None

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is not None and (index := self._index_at(offset.x)) is not None:
            self.post_message(self.Pointed(index, event.chain > 1))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        if (index := self._index_at(event.x)) is not None:
            self.scroll(3, index)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        if (index := self._index_at(event.x)) is not None:
            self.scroll(-3, index)
