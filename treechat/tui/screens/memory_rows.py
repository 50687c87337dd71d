"""The rows of the memory view: conversations and the branches of open ones, each with a bar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from treechat.chat.kv.slot_usage import BranchUsage, ConversationUsage, SlotUsage, TierCounts
from treechat.tui.safe_text import fit, without_markdown
from treechat.tui.widgets.line_widget import LineWidget

BAR_WIDTH = 14
"""Cells of a bar. The row with the most tokens fills it."""

NUMBER_WIDTH = 9
"""Cells of a number column."""

SHAPES = (("█", "device"), ("▒", "host"), ("░", "cold"))
"""The shapes of a bar by tier: distinct without colour."""


class MemoryRow(NamedTuple):
    """A conversation (branch None), or one of its branches."""

    conversation: ConversationUsage
    branch: BranchUsage | None = None

    @property
    def counts(self) -> TierCounts:
        return self.branch.counts if self.branch else self.conversation.counts

    @property
    def key(self) -> tuple[str, str | None]:
        return self.conversation.id, self.branch.head_id if self.branch else None


def bar(counts: TierCounts, most: int, width: int = BAR_WIDTH) -> list[tuple[str, int]]:
    """Return (shape, cells) per tier, in the order of `SHAPES`. A tier with tokens gets a cell, if one is left.

    counts: tokens per tier.
    most: tokens of a full bar.
    width: cells of a full bar.
    """
    left = width
    parts = []
    for (shape, _), num in zip(SHAPES, (counts.device, counts.host, counts.cold), strict=True):
        cells = min(max(round(width * num / most), 1) if num and most else 0, left)
        left -= cells
        parts.append((shape, cells))
    return parts


class MemoryRows(ScrollView, LineWidget, can_focus=True):
    """The list of rows with a cursor; draws only visible lines."""

    prefix = "memory"
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"memory--{name}" for name in ("cursor", "device", "host", "cold", "branch")
    }

    @dataclass
    class Pointed(Message):
        """A row was clicked."""

        index: int
        is_twice: bool

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[MemoryRow] = []
        self.index = 0
        self.open_ids: set[str] = set()
        self._memory: SlotUsage | None = None
        self._most = 1

    @property
    def row(self) -> MemoryRow | None:
        return self.rows[self.index] if self.rows else None

    def show(self, memory: SlotUsage) -> None:
        """Show a snapshot. The cursor stays on its row; if the row is gone, at its index."""
        key = self.row.key if self.row else None
        self._memory = memory
        self._most = max((conversation.counts.total for conversation in memory.conversations), default=1)
        self._lay(key)

    def open(self, conversation: ConversationUsage, opens: bool) -> None:
        """Show or hide a conversation's branches."""
        (self.open_ids.add if opens else self.open_ids.discard)(conversation.id)
        self._lay((conversation.id, None))

    def _lay(self, key: tuple[str, str | None] | None) -> None:
        self.rows = []
        for conversation in self._memory.conversations if self._memory else ():
            self.rows.append(MemoryRow(conversation))
            if conversation.id in self.open_ids:
                self.rows.extend(MemoryRow(conversation, branch) for branch in conversation.branches)
        self.virtual_size = Size(0, len(self.rows))
        found = next((number for number, row in enumerate(self.rows) if row.key == key), self.index)
        self.go(found)

    def go(self, index: int) -> None:
        self.index = min(max(index, 0), max(len(self.rows) - 1, 0))
        self.scroll_to_region(Region(0, self.index, 1, 1), animate=False, force=True)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        index = y + self.scroll_offset.y
        if index >= len(self.rows):
            return Strip.blank(width, self.rich_style)
        strip = Strip(self._segments(self.rows[index], width)).adjust_cell_length(width)
        style = self.rich_style + self.style_of("cursor") if index == self.index else self.rich_style
        return strip.apply_style(style)

    def _segments(self, row: MemoryRow, width: int) -> list[Segment]:
        counts, branch = row.counts, row.branch
        if branch is not None:
            lead = f"    {'  ' * min(branch.depth, 6)}"
            text = branch.title or "(empty)"
        else:
            lead = "▾ " if row.conversation.id in self.open_ids else "▸ " if row.conversation.branches else "  "
            text = row.conversation.title or "(untitled)"
        room = width - BAR_WIDTH - 1 - 3 * NUMBER_WIDTH - 1
        style = self.style_of("branch") if branch is not None else None
        cells = bar(counts, self._most)
        segments = [Segment(f"{fit(lead + without_markdown(text), max(room, 0))} ", style)]
        for (shape, num), (_, name) in zip(cells, SHAPES, strict=True):
            segments.append(Segment(shape * num, self.style_of(name)))
        segments.append(Segment(" " * (BAR_WIDTH - sum(num for _, num in cells))))
        segments.extend(
            Segment(f"{num:>{NUMBER_WIDTH},}", self.style_of(name) if num else self.style_of("cold"))
            for num, (_, name) in zip((counts.device, counts.host, counts.cold), SHAPES, strict=True)
        )
        return segments

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is not None and (index := offset.y + self.scroll_offset.y) < len(self.rows):
            self.post_message(self.Pointed(index, event.chain > 1))


def heading(width: int) -> str:
    """Return the column titles above the rows."""
    right = "".join(f"{f'{shape} {name}':>{NUMBER_WIDTH}}" for shape, name in SHAPES)
    return f"  {fit('conversation, branches', max(width - 2 - cell_len(right), 0))}{right}"
