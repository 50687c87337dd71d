"""The tree pane: one row per run. It owns fold, hoist and filter, and draws only the visible rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from treechat.chat.kv.costs import Cost
from treechat.chat.session import Chat
from treechat.tree import Node
from treechat.tui.bindings import PANE_BINDINGS
from treechat.tui.safe_text import fit, one_line, without_markdown
from treechat.tui.tree.filters import FILTERS, Filter, apply_filter, breadcrumb
from treechat.tui.tree.rows import RowLayout, TreeRow, gutter
from treechat.tui.widgets.line_widget import LineWidget

MAX_WARM_ROWS = 2_000
"""Rows that the warm filter considers."""

NARROW_WIDTH = 44
"""Cells. In a narrower pane, the number of turns is drawn without its noun."""


class TreePane(ScrollView, LineWidget, can_focus=True):
    """The runs of a conversation, one row each. The app handles the keys and moves the cursor."""

    BINDINGS = PANE_BINDINGS
    prefix = "tree"
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "tree--guide",
        "tree--title",
        "tree--reply",
        "tree--cursor",
        "tree--cursor-blurred",
        "tree--here",
        "tree--mark",
        "tree--cold",
        "tree--figures",
        "tree--star",
        "tree--top",
    }

    @dataclass
    class Pointed(Message):
        """A row was clicked."""

        node_id: str

    @dataclass
    class Chosen(Message):
        """A row was clicked twice."""

        node_id: str

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.chat: Chat | None = None
        self.row_layout: RowLayout | None = None
        self.cursor_id: str | None = None
        self.folded_ids: set[str] = set()
        self.expanded_ids: set[str | None] = set()
        self.hoisted_id: str | None = None
        self.filter: Filter = FILTERS[0]
        self.costs: Mapping[str, Cost] = {}
        self._tips: list[str] = []
        self._key: object = None
        self._columns = (0, 0)

    def on_mount(self) -> None:
        self.show_horizontal_scrollbar = False

    # Rows

    def show(self, chat: Chat) -> None:
        """Show a conversation, without the folds and the hoist of the previous one."""
        self.chat = chat
        self.folded_ids, self.expanded_ids, self.hoisted_id, self._key = set(), set(), None, None
        self.sync()

    def sync(self) -> None:
        """Draw titles and marks again, and lay the rows out if they changed."""
        self.lay_out()
        self.refresh()

    def lay_out(self) -> None:
        """Lay the rows out again if the structure, the current node or the folds changed."""
        if self.chat is None:
            return
        tree = self.chat.tree
        if self.hoisted_id is not None and (self.hoisted_id not in tree or tree.is_hidden(self.hoisted_id)):
            self.hoisted_id = None
        folds = (frozenset(self.folded_ids), frozenset(self.expanded_ids), self.hoisted_id)
        warm_ids = self._warm_ids()
        marks = (
            sum(node.bookmarked or bool(node.label) for node in tree.nodes.values())
            if self.filter == "bookmarked"
            else 0
        )
        key = (id(tree), tree.version, self.chat.current_id, folds, self.filter, warm_ids, marks)
        if key != self._key:
            self._key = key
            self.row_layout = RowLayout(
                tree,
                self.chat.current_id,
                folded_ids=self.folded_ids,
                expanded_ids=self.expanded_ids,
                hoisted_id=self.hoisted_id,
            )
            self._tips = [row.tip_id for row in self.row_layout.rows if not row.dead_end_ids]
            if self.filter != "everything":
                apply_filter(self.row_layout, tree, self.filter, self.chat.current_id, warm_ids)
            # The first line is the breadcrumb; it does not scroll.
            self.virtual_size = Size(0, len(self.row_layout.rows) + 1)
            most_turns = max((row.num_nodes for row in self.row_layout.rows if not row.dead_end_ids), default=1)
            most_siblings = max((row.num_siblings for row in self.row_layout.rows), default=1)
            self._columns = (len(f"{most_turns:,} turns"), 2 * len(str(most_siblings)) + 1 if most_siblings > 1 else 0)
            self.refresh()

    def point(self, node_id: str | None) -> None:
        """Put the cursor on the row that shows the node, and scroll to it."""
        left, self.cursor_id = self.cursor_row, node_id
        if (index := self.cursor_row) is not None:
            self.scroll_to_region(Region(0, index, 1, 2), animate=False, force=True)
        self.redraw_lines(0, 1)
        for row in {left, index} if left != index else ():
            if row is not None:
                line = row + 1 - self.scroll_offset.y
                self.redraw_lines(max(line, 1), line + 1)

    @property
    def rows(self) -> list[TreeRow]:
        return self.row_layout.rows if self.row_layout else []

    @property
    def cursor_row(self) -> int | None:
        return self.row_layout.row_of(self.cursor_id) if self.row_layout and self.cursor_id else None

    @property
    def row(self) -> TreeRow | None:
        """The row under the cursor."""
        return self.rows[self.cursor_row] if self.cursor_row is not None else None

    @property
    def visible_ids(self) -> list[str]:
        """Last nodes of the rows that need costs: the visible rows; for the warm filter, up to `MAX_WARM_ROWS`."""
        if self.filter == "warm":
            return self._tips[:MAX_WARM_ROWS]
        top = self.scroll_offset.y
        return [row.tip_id for row in self.rows[top : top + self.size.height] if not row.dead_end_ids]

    def _warm_ids(self) -> frozenset[str]:
        if self.filter != "warm":
            return frozenset()
        return frozenset(node_id for node_id, cost in self.costs.items() if cost.mark != "○")

    def next_filter(self) -> Filter:
        """Switch to the next filter and return it."""
        self.filter = FILTERS[(FILTERS.index(self.filter) + 1) % len(FILTERS)]
        self._redraw()
        return self.filter

    # Folds

    def toggle_fold(self) -> None:
        """Hide or show the rows below the row under the cursor; show the dead ends that it stands for."""
        row = self.row
        if row is None or self.chat is None:
            return
        if row.dead_end_ids:
            self.expanded_ids.add(self.chat.tree[row.head_id].parent_id)
        elif row.head_id in self.folded_ids:
            self.folded_ids.discard(row.head_id)
        elif self.chat.tree.children(row.tip_id):
            self.folded_ids.add(row.head_id)
        self._redraw()

    def hoist(self) -> None:
        """Show only the row under the cursor and the rows below it."""
        if self.row is not None:
            self.hoisted_id = self.row.head_id
            self._redraw()

    def unhoist(self) -> None:
        """Show the whole tree again."""
        self.hoisted_id = None
        self._redraw()

    def _redraw(self) -> None:
        """Lay the rows out and keep the cursor on its node."""
        self.sync()
        self.point(self.cursor_id)

    # Drawing

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        if y == 0:
            return self.strip_of(self._top_line(width), width)
        index = y - 1 + self.scroll_offset.y
        if self.chat is None or index >= len(self.rows):
            return Strip.blank(width, self.rich_style)
        row = self.rows[index]
        segments = self._dead_segments(row, width) if row.dead_end_ids else self._run_segments(row, width)
        if index == self.cursor_row:
            style = self.style_of("cursor" if self.has_focus else "cursor-blurred")
            return self.strip_of(Segment.apply_style([*segments, Segment(" " * width)], style), width)
        return self.strip_of(segments, width)

    def _top_line(self, width: int) -> list[Segment]:
        """The active filter, and the breadcrumb if the rows do not show the position."""
        if self.chat is None:
            return []
        parts = [f"f {self.filter}"] if self.filter != "everything" else []
        row = self.row
        is_cut = row is not None and gutter(row, width)[:1] == "…"
        if self.cursor_id and self.cursor_id in self.chat.tree and (self.hoisted_id is not None or is_cut or parts):
            if self.hoisted_id is not None:
                parts.append("⌂ Z un-hoists")
            lead = " · ".join(parts)
            parts = [lead] if lead else []
            parts.append(breadcrumb(self.chat.tree, self.cursor_id, width - cell_len(lead) - 5))
        return [Segment(f" {fit('  '.join(parts), width - 2)}", self.style_of("top"))]

    def _dead_segments(self, row: TreeRow, width: int) -> list[Segment]:
        text = f"+{len(row.dead_end_ids):,} dead ends"
        return [
            Segment(f" {gutter(row, width)}", self.style_of("guide")),
            Segment(text, self.style_of("figures")),
        ]

    def _run_segments(self, row: TreeRow, width: int) -> list[Segment]:
        assert self.chat is not None
        cost = self.costs.get(row.tip_id)
        mark = cost.mark if cost else "·"
        lead = f" {gutter(row, width)}"
        figures = self._figures(row, cost, width)
        here = "  ← here" if self._is_here(row) else ""
        room = width - cell_len(lead) - 2 - cell_len(figures) - 5
        if here and room - cell_len(here) < 4:
            here = " ←"
        title, style = self._title(row)
        title = one_line(title)
        used = min(cell_len(title), max(room - cell_len(here), 0))
        is_bookmarked = any(node.bookmarked for node in self._ends(row))
        is_protected = any(node.id in self.chat.protected for node in self._ends(row))
        sign = "★" if is_bookmarked else "◆" if is_protected else " "
        return [
            Segment(lead, self.style_of("guide")),
            Segment(f"{mark} ", self.style_of("mark" if mark in "●◐" else "cold")),
            Segment(fit(title, used), self.style_of(style)),
            Segment(here, self.style_of("here")),
            Segment(" " * max(room - used - cell_len(here), 0)),
            Segment(f"  {figures}", self.style_of("figures")),
            Segment(f" {sign} ", self.style_of("star")),
        ]

    def _ends(self, row: TreeRow) -> tuple[Node, Node]:
        assert self.chat is not None
        return self.chat.tree[row.head_id], self.chat.tree[row.tip_id]

    def _is_here(self, row: TreeRow) -> bool:
        assert self.chat is not None
        current_id = self.chat.current_id
        index = self.row_layout.row_of(current_id) if self.row_layout is not None else None
        return index is not None and self.rows[index] is row

    def _title(self, row: TreeRow) -> tuple[str, str]:
        """A run's title and its style: a label at its ends, else its first message; of a streaming reply its end."""
        assert self.chat is not None
        head, tip = self._ends(row)
        if label := tip.label or head.label:
            return label, "title"
        if head.id in self.chat.replies:
            return f"{self.chat.replies[head.id].text[-200:].strip()[-60:]} ▌", "reply"
        if head.role == "system" and (children := self.chat.tree.children(head.id)) and row.num_nodes > 1:
            head = self.chat.tree[children[0]]
        title = head.preview or ("(empty)" if head.status == "complete" else f"({head.status})")
        return (title, "title") if head.role == "user" else (without_markdown(title), "reply")

    def _figures(self, row: TreeRow, cost: Cost | None, width: int) -> str:
        """Folded nodes, waiting time, turns and sibling number, each in a column as wide as its widest value."""
        is_slow = cost is not None and cost.mark != "●" and cost.seconds is not None and cost.seconds >= 0.1
        wait = f"~{_seconds(cost.seconds)}" if is_slow and cost and cost.seconds else ""
        folded = f"+{row.num_below:,}" if row.num_below else ""
        sibling = f"{row.index}/{row.num_siblings}" if row.num_siblings > 1 else ""
        turns = f"{row.num_nodes:,}" if width < NARROW_WIDTH else _turns(row.num_nodes)
        turns_len, sibling_len = self._columns
        if width < NARROW_WIDTH:
            turns_len -= len(" turns")
        return "  ".join(
            part
            for part in (folded, wait, f"{turns:>{turns_len}}", f"{sibling:>{sibling_len}}" if sibling_len else "")
            if part
        )

    # Mouse

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        index = offset.y - 1 + self.scroll_offset.y
        if offset.y and 0 <= index < len(self.rows):
            tip_id = self.rows[index].tip_id
            self.post_message(self.Chosen(tip_id) if event.chain > 1 else self.Pointed(tip_id))


def _turns(num: int) -> str:
    return f"{num:,} turn{'s' if num != 1 else ' '}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:,.0f} s"
