"""Two branches side by side: the common part is only counted, the rest is aligned by turn, own words are marked."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

from treechat.tree import Role
from treechat.tui.bindings import COMPARE_BINDINGS
from treechat.tui.safe_text import escape_controls, one_line
from treechat.tui.screens.branch_diff import Comparison, DiffPart, TurnPair
from treechat.tui.screens.modal import Modal

MAX_TURNS = 200
"""Turns that are drawn; the others are only counted."""

TWO_COLUMN_WIDTH = 90
"""Minimum width in cells to draw the branches side by side."""

NAMES: dict[Role, str] = {"user": "You", "assistant": "Assistant", "system": "System"}


class PairView(Static):
    """The same turn of both branches."""

    def __init__(self, pair: TurnPair) -> None:
        super().__init__()
        self.pair = pair

    def on_mount(self) -> None:
        self.draw()

    def on_resize(self) -> None:
        self.draw()

    def draw(self) -> None:
        width = self.app.size.width
        left = self._side(self.pair.left, self.pair.left_role, "−")
        right = self._side(self.pair.right, self.pair.right_role, "+")
        self.update(
            _side_by_side(left, right) if width >= TWO_COLUMN_WIDTH else _stacked(left, right, self.pair.is_same)
        )

    def _side(self, parts: Sequence[DiffPart] | None, role: Role | None, mark: str) -> Text:
        if parts is None or role is None:
            return Text("(this branch has ended)", style="dim italic")
        is_same = self.pair.is_same
        text = Text(f"{' ' if is_same else mark} {NAMES[role]}{'  the same' if is_same else ''}\n", style="bold")
        own = Style(underline=True, bold=True)
        for part in parts:
            text.append(escape_controls(part.text), own if part.is_own else Style(bold=False, dim=is_same))
        return text


def _side_by_side(left: Text, right: Text) -> RenderableType:
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(ratio=1)
    table.add_column(ratio=1)
    table.add_row(left, right)
    return table


def _stacked(left: Text, right: Text, is_same: bool) -> RenderableType:
    return left if is_same else Text("\n").join([left, right])


class CompareScreen(Modal[bool]):
    """Returns whether to jump to the right branch."""

    BINDINGS = COMPARE_BINDINGS

    def __init__(self, comparison: Comparison, left: str, right: str) -> None:
        """Show a comparison.

        comparison: its left branch is drawn at the left.
        left: the name of the left branch.
        right: the name of the right branch.
        """
        super().__init__()
        self.comparison = comparison
        self._names = (left, right)

    def compose(self) -> ComposeResult:
        pairs = self.comparison.pairs
        with Vertical(id="compare", classes="window full") as window:
            num = self.comparison.num_common
            common = f"{num:,} message{'s' if num != 1 else ''}" if num else "nothing"
            window.border_title = f"{common} in common, then"
            window.border_subtitle = "underlined: only there · n N next · enter jumps to + · esc closes"
            yield Static(self._heading(), id="branches")
            with VerticalScroll():
                for pair in pairs[:MAX_TURNS]:
                    yield PairView(pair)
                if len(pairs) > MAX_TURNS:
                    yield Static(Text(f"… and {len(pairs) - MAX_TURNS:,} more turns", style="dim"))

    def _heading(self) -> RenderableType:
        left, right = (Text(f"{mark} {one_line(name)}", no_wrap=True, overflow="ellipsis", style="bold")
                       for mark, name in zip("−+", self._names, strict=True))  # fmt: skip
        return _side_by_side(left, right)

    @property
    def pane(self) -> VerticalScroll:
        return self.query_one(VerticalScroll)

    def on_mount(self) -> None:
        self.pane.focus()

    def action_line(self, by: int) -> None:
        self.pane.scroll_relative(y=by, animate=False)

    def action_page(self, by: int) -> None:
        self.pane.scroll_relative(y=by * max(self.pane.size.height - 2, 1), animate=False)

    def action_edge(self, by: int) -> None:
        self.pane.scroll_to(y=0 if by < 0 else self.pane.max_scroll_y, animate=False)

    def action_difference(self, by: int) -> None:
        here = round(self.pane.scroll_y)
        tops = [view.virtual_region.y for view in self.query(PairView) if not view.pair.is_same]
        ahead = [top for top in tops if (top - here) * by > 0]
        if ahead:
            self.pane.scroll_to(y=min(ahead, key=lambda top: abs(top - here)), animate=False)
        else:
            self.app.bell()

    def action_jump(self) -> None:
        self.dismiss(True)

    def action_close(self) -> None:
        self.dismiss(False)
