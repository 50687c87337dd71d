"""The minimap: the whole path in one column, a cell per few turns, each told by shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

from rich.text import Text
from textual import events
from textual.message import Message

from treechat.chat.events import Cost
from treechat.tree import Tree
from treechat.tui.component_styles import ComponentStyles
from treechat.tui.transcript import Transcript

MARKS = {"here": "◂", "bookmark": "★", "fork": "⑂", "●": "┃", "◐": "╏", "○": "·", "": " "}
"""What a cell shows. Of several in one cell the first of these wins: where the cursor is, a bookmark, a fork; then the
least warm of its turns; a space where nothing is known."""

_WARMTH = ("○", "◐", "●")


class Cell(NamedTuple):
    """first, last: indices of the turns that it stands for. mark: a key of `MARKS`."""

    first: int
    last: int
    mark: str

    @property
    def text(self) -> str:
        return MARKS[self.mark]


def cells(tree: Tree, path: list[str], costs: Mapping[str, Cost], cursor_id: str | None, height: int) -> list[Cell]:
    """The path in at most `height` cells, each for about as many turns as the others."""
    num = min(len(path), max(height, 0))
    edges = [len(path) * index // num for index in range(num + 1)] if num else []
    return [Cell(first, end - 1, _mark(tree, path[first:end], costs, cursor_id)) for first, end in pairwise(edges)]


def _mark(tree: Tree, node_ids: list[str], costs: Mapping[str, Cost], cursor_id: str | None) -> str:
    if cursor_id in node_ids:
        return "here"
    nodes = [tree[node_id] for node_id in node_ids]
    if any(node.bookmarked for node in nodes):
        return "bookmark"
    if any(tree.is_fork(node.parent_id) for node in nodes):
        return "fork"
    warmth = [costs[node_id].mark for node_id in node_ids if node_id in costs]
    return min(warmth, key=_WARMTH.index, default="")


class Minimap(ComponentStyles):
    """Stands beside a transcript that does not fit; what is in sight there has a ground of its own."""

    prefix = "minimap"
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"minimap--{name}" for name in ("here", "sign", "warm", "seen")}

    @dataclass
    class Pointed(Message):
        """A cell was clicked; the first message that it stands for."""

        node_id: str

    def __init__(self, transcript: Transcript, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.transcript = transcript
        self.costs: Mapping[str, Cost] = {}

    def on_mount(self) -> None:
        self.watch(self.transcript, "scroll_y", self._moved, init=False)
        self.watch(self.transcript, "virtual_size", self._moved, init=False)

    def _moved(self) -> None:
        self.refresh()

    @property
    def cells(self) -> list[Cell]:
        """Empty while the whole transcript is in sight."""
        blocks = self.transcript.blocks
        if blocks is None or blocks.total <= self.transcript.size.height:
            return []
        path = [node_id for node_id in blocks.node_ids if node_id in blocks.chat.tree]
        return cells(blocks.chat.tree, path, self.costs, self.transcript.cursor_id, self.size.height)

    def render(self) -> Text:
        text = Text(end="")
        blocks = self.transcript.blocks
        shown = self.cells
        if blocks is None or not shown:
            return text
        top = round(self.transcript.scroll_y)
        first, last = blocks.at(top), blocks.at(top + self.transcript.size.height - 1)
        styles = {"here": self.styled("here"), "bookmark": self.styled("sign"), "fork": self.styled("sign")}
        warm, seen = self.styled("warm"), self.styled("seen")
        for cell in shown:
            style = styles.get(cell.mark, warm)
            is_seen = cell.first <= last and cell.last >= first
            text.append(cell.text, style + seen if is_seen else style)
            text.append("\n")
        text.right_crop(1)
        return text

    def on_click(self, event: events.Click) -> None:
        offset, shown = event.get_content_offset(self), self.cells
        if offset is not None and offset.y < len(shown) and self.transcript.blocks is not None:
            self.post_message(self.Pointed(self.transcript.blocks.node_ids[shown[offset.y].first]))
