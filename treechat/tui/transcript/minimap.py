"""The minimap: the whole path in one column. Each cell stands for a few messages; marks differ in shape."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.strip import Strip

from treechat.chat.kv.costs import Cost
from treechat.tree import Tree
from treechat.tui.transcript.view import Transcript
from treechat.tui.widgets.line_widget import LineWidget

MARKS = {"here": "◂", "bookmark": "★", "fork": "⋔", "●": "┃", "◐": "╏", "○": "·", "": " "}
"""The marks of cells, by precedence: cursor, bookmark, fork, then the least warm of its messages; "" if unknown."""

_WARMTH = ("○", "◐", "●")


class Cell(NamedTuple):
    """One cell.

    first: index on the path of its first message.
    last: index of its last message.
    mark: a key of `MARKS`.
    """

    first: int
    last: int
    mark: str

    @property
    def text(self) -> str:
        return MARKS[self.mark]


def cells(tree: Tree, path: list[str], costs: Mapping[str, Cost], height: int) -> list[Cell]:
    """Divide the path into at most `height` cells of about equal size."""
    num = min(len(path), max(height, 0))
    edges = [len(path) * index // num for index in range(num + 1)] if num else []
    return [Cell(first, end - 1, _mark(tree, path[first:end], costs)) for first, end in pairwise(edges)]


def _mark(tree: Tree, node_ids: list[str], costs: Mapping[str, Cost]) -> str:
    nodes = [tree[node_id] for node_id in node_ids]
    if any(node.bookmarked for node in nodes):
        return "bookmark"
    if any(tree.is_fork(node.parent_id) for node in nodes):
        return "fork"
    warmth = [costs[node_id].mark for node_id in node_ids if node_id in costs]
    return min(warmth, key=_WARMTH.index, default="")


def with_here(found: list[Cell], index: int | None) -> list[Cell]:
    """Return the cells, with the cursor's mark on the cell of the message at `index`."""
    if index is None:
        return found
    number = bisect_left(found, index, key=lambda cell: cell.last)
    return [*found[:number], *(cell._replace(mark="here") for cell in found[number : number + 1]), *found[number + 1 :]]


class Minimap(LineWidget):
    """A column beside a transcript that does not fit. The visible part of the path has its own background."""

    prefix = "minimap"
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"minimap--{name}" for name in ("here", "sign", "warm", "seen")}

    @dataclass
    class Pointed(Message):
        """A cell was clicked; `node_id` is its first message."""

        node_id: str

    def __init__(self, transcript: Transcript, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.transcript = transcript
        self.costs: Mapping[str, Cost] = {}
        self._lines: list[tuple[str, bool]] = []
        self._cells: list[Cell] = []
        self._key: tuple[object, ...] = ()

    def on_mount(self) -> None:
        self.watch(self.transcript, "scroll_y", self._moved, init=False)
        self.watch(self.transcript, "num_lines", self._moved, init=False)

    def on_resize(self) -> None:
        self.draw()

    def _moved(self) -> None:
        self.draw()

    def update_costs(self, costs: Mapping[str, Cost]) -> None:
        """Set the costs of the nodes and redraw."""
        self.costs = costs
        self.draw(force=True)

    def draw(self, force: bool = False) -> None:
        """Draw the cells that changed. force: also if the tree's version is the same, as after a bookmark."""
        if force:
            self._key = ()
        before, self._lines = self._lines, self._seen_marks()
        for y in range(max(len(before), len(self._lines))):
            if before[y : y + 1] != self._lines[y : y + 1]:
                self.redraw_lines(y, y + 1)

    @property
    def cells(self) -> list[Cell]:
        """The cells; empty while the whole transcript is visible."""
        blocks, height = self.transcript.blocks, self.size.height
        if blocks is None or blocks.total <= self.transcript.size.height:
            return []
        tree = blocks.chat.tree
        key = (blocks, tree, tree.version, height)
        if key != self._key:
            self._key = key
            path = [node_id for node_id in blocks.node_ids if node_id in tree]
            self._cells = cells(tree, path, self.costs, height)
        return with_here(self._cells, blocks.index_of.get(self.transcript.cursor_id or ""))

    def _seen_marks(self) -> list[tuple[str, bool]]:
        """Return (mark, is visible in the transcript) of each cell."""
        blocks, shown = self.transcript.blocks, self.cells
        if blocks is None or not shown:
            return []
        top = round(self.transcript.scroll_y)
        first, last = blocks.index_at(top), blocks.index_at(top + self.transcript.size.height - 1)
        return [(cell.mark, cell.first <= last and cell.last >= first) for cell in shown]

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y >= len(self._lines):
            return Strip.blank(width, self.rich_style)
        mark, is_seen = self._lines[y]
        style = self.style_of({"here": "here", "bookmark": "sign", "fork": "sign"}.get(mark, "warm"))
        return self.strip_of([Segment(MARKS[mark], style + self.style_of("seen") if is_seen else style)], width)

    def on_click(self, event: events.Click) -> None:
        offset, shown = event.get_content_offset(self), self.cells
        if offset is not None and offset.y < len(shown) and self.transcript.blocks is not None:
            self.post_message(self.Pointed(self.transcript.blocks.node_ids[shown[offset.y].first]))
