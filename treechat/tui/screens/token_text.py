"""A text of pieces (tokens or words) with a cursor on one: laid out in rows, unlikely tokens marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from treechat.tui.safe_text import escape_controls, wrap
from treechat.tui.widgets.line_widget import LineWidget

END = "␃"
PARTIAL = "·"
"""Signs for a piece without text: the end of a reply, or a token inside a character."""

DOUBT, STRONG_DOUBT = 0.5, 0.2
"""Probabilities below which a token is doubtful, and very doubtful."""

Row = list[tuple[int, str]]
"""(index of a piece, its text in this row), in order."""


def visible(text: str, is_last: bool = False) -> str:
    """Return a piece in drawn form: line ends as ↵ and a newline, tabs as ⇥, an empty piece as a sign.

    is_last: an empty last piece is the end of the reply.
    """
    if not text:
        return END if is_last else PARTIAL
    return escape_controls(text).replace("\t", "⇥").replace("\n", "↵\n")


def lay_out(texts: Sequence[str], width: int) -> list[Row]:
    """Lay pieces out in rows of at most `width` cells, broken at spaces if possible. Each piece is in some row."""
    rows: list[Row] = [[]]
    used = 0
    word: Row = []

    def flush() -> None:
        nonlocal used
        room = cell_len("".join(part for _, part in word))
        if used and used + room > width:
            rows.append([])
            used = 0
        for index, part in word:
            for number, cut in enumerate(wrap(part, width) if used + cell_len(part) > width else [part]):
                if used and (number or used + cell_len(cut) > width):
                    rows.append([])
                    used = 0
                rows[-1].append((index, cut))
                used += cell_len(cut)
        word.clear()

    for index, text in enumerate(texts):
        for number, part in enumerate(visible(text, index == len(texts) - 1).split("\n")):
            if number:
                flush()
                rows.append([])
                used = 0
            if part:
                if part[0].isspace() or (word and word[-1][1][-1].isspace()):
                    flush()
                word.append((index, part))
    flush()
    return rows


def next_doubt(probabilities: Sequence[float | None], index: int, by: int) -> int | None:
    """Return the nearest doubtful token before (`by` -1) or after (1) `index`, or None.

    Doubtful tokens have a probability below `DOUBT`. If there are none, the least likely tenth counts as doubtful.

    probabilities: of each token; None if unknown.
    index: the token to start from; it is excluded.
    """
    known = [(p, i) for i, p in enumerate(probabilities) if p is not None]
    doubtful = {i for p, i in known if p < DOUBT} or {i for _, i in sorted(known)[: len(known) // 10 + 1]}
    ahead = [i for i in doubtful if (i - index) * by > 0]
    return min(ahead, key=lambda i: abs(i - index)) if ahead else None


class TokenText(ScrollView, LineWidget, can_focus=False):
    """The pieces with a cursor on one. Pieces from `rest_from` on are drawn as excluded."""

    prefix = "token"
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"token--{name}" for name in ("sure", "doubt", "strong-doubt", "cursor", "rest")
    }

    @dataclass
    class Pointed(Message):
        """A piece was clicked."""

        index: int

    def __init__(self, texts: Sequence[str], probabilities: Sequence[float | None]) -> None:
        super().__init__()
        self.texts = texts
        self.probabilities = probabilities
        self.index = 0
        self.rest_from = len(texts)
        self.rows: list[Row] = []
        self._row_of: dict[int, int] = {}

    def on_resize(self) -> None:
        self.rows = lay_out(self.texts, max(self.scrollable_content_region.width, 8))
        self._row_of = {}
        for number, row in enumerate(self.rows):
            for index, _ in row:
                self._row_of.setdefault(index, number)
        self.virtual_size = Size(0, len(self.rows))
        self.point(self.index)

    def point(self, index: int) -> None:
        """Put the cursor on a piece and scroll to it."""
        self.index = index
        self.scroll_to_region(Region(0, self._row_of.get(index, 0), 1, 1), animate=False, force=True)
        self.refresh()

    def above(self, by: int) -> int:
        """Return the piece `by` rows below the cursor, at about the same column."""
        here = self._row_of.get(self.index, 0)
        target = min(max(here + by, 0), len(self.rows) - 1)
        return self._at(target, self._column(here)) if self.rows[target] else self.index

    def _column(self, number: int) -> int:
        column = 0
        for index, part in self.rows[number]:
            if index == self.index:
                break
            column += cell_len(part)
        return column

    def _at(self, number: int, column: int) -> int:
        row, end = self.rows[number], 0
        for index, part in row:
            end += cell_len(part)
            if column < end:
                return index
        return row[-1][0] if row else self.index

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        number = y + self.scroll_offset.y
        if number >= len(self.rows):
            return Strip.blank(width, self.rich_style)
        segments = [Segment(part, self._style(index)) for index, part in self.rows[number]]
        return Strip(segments).adjust_cell_length(width).apply_style(self.rich_style)

    def _style(self, index: int) -> Style:
        if index == self.index:
            return self.style_of("cursor")
        if index >= self.rest_from:
            return self.style_of("rest")
        p = self.probabilities[index]
        if p is None or p >= DOUBT:
            return self.style_of("sure")
        return self.style_of("doubt" if p >= STRONG_DOUBT else "strong-doubt")

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is not None and (number := offset.y + self.scroll_offset.y) < len(self.rows) and self.rows[number]:
            self.post_message(self.Pointed(self._at(number, offset.x)))
