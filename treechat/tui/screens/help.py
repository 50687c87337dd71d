"""The help: made from the bindings that are in force, so that it cannot lie."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

from treechat.tui.bindings import PAGE_BINDINGS, SECTIONS, Where
from treechat.tui.screens.over import Over

_NAMES = {
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "question_mark": "?",
    "slash": "/",
    "equals_sign": "=",
    "escape": "esc",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
}


def shown_keys(keys: str) -> str:
    """`j,down` as a person reads it."""
    parts = []
    for key in keys.split(","):
        *modifiers, name = key.strip().split("+")
        parts.append("+".join([*modifiers, _NAMES.get(name, name)]))
    return "  ".join(parts)


def help_table(keymap: Mapping[str, str], focus: Where) -> Table:
    """All keys by section, those of `focus` first; `keymap` holds the configuration's own keys by binding id."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for title, keys in sorted(SECTIONS.items(), key=lambda section: section[1][0].where != focus):
        table.add_row(Text("—"), Text(title, style="bold underline"))
        for key in keys:
            about = Text.assemble((key.title, "bold"), f"  {key.tooltip}", (f"  {key.id}", "dim"))
            table.add_row(Text(shown_keys(keymap.get(key.id, key.keys)), style="bold"), about)
        table.add_row()
    return table


class HelpScreen(Over[None]):
    """Scrolls; any of the keys that opened it closes it."""

    BINDINGS = PAGE_BINDINGS

    def __init__(self, keymap: Mapping[str, str], focus: Where) -> None:
        super().__init__()
        self._keymap = keymap
        self._focus = focus

    def compose(self) -> ComposeResult:
        with Vertical(classes="window") as window:
            window.border_title = "Keys"
            window.border_subtitle = "dim names are for keymap in the configuration · esc closes"
            with VerticalScroll():
                yield Static(help_table(self._keymap, self._focus))
