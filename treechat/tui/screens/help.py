"""The help screen, made from the active bindings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import ClassVar, NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.strip import Strip

from treechat.tui.bindings import PAGE_BINDINGS, SECTIONS, KeyPlace
from treechat.tui.safe_text import fit, wrap
from treechat.tui.screens.modal import Modal
from treechat.tui.widgets.line_scroll import LineScroll

_KEY_LABELS = {
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


def key_labels(keys: str) -> str:
    """Return `j,down` in readable form: `j  ↓`."""
    parts = []
    for key in keys.split(","):
        *modifiers, name = key.strip().split("+")
        parts.append("+".join([*modifiers, _KEY_LABELS.get(name, name)]))
    return "  ".join(parts)


class HelpRow(NamedTuple):
    """A binding, or the title of a section.

    keys: the keys in readable form; "" for a section.
    title: the name of the action or of the section.
    tooltip: the effect of the keys.
    key_id: the binding's name in a keymap.
    """

    keys: str
    title: str
    tooltip: str = ""
    key_id: str = ""


def help_rows(keymap: Mapping[str, str], focus: KeyPlace) -> list[HelpRow]:
    """Return all keys by section.

    keymap: the configuration's keys by binding id.
    focus: the place whose section comes first.
    """
    rows = []
    for title, keys in sorted(SECTIONS.items(), key=lambda section: section[1][0].place != focus):
        rows.append(HelpRow("", title))
        rows.extend(HelpRow(key_labels(keymap.get(key.id, key.keys)), key.title, key.tooltip, key.id) for key in keys)
    return rows


class HelpLines(LineScroll, can_focus=True):
    """The rows, drawn line by line. A Rich table would take 200 ms, and would be built twice when the screen opens."""

    prefix = "help"
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"help--{name}" for name in ("section", "key", "id")}

    def __init__(self, rows: Sequence[HelpRow]) -> None:
        super().__init__()
        self._rows = rows
        self._lines: list[list[tuple[str, str]]] = []

    def on_resize(self) -> None:
        width = max(self.scrollable_content_region.width, 20)
        key_width = min(max(cell_len(row.keys) for row in self._rows), width // 3)
        self._lines = []
        for row in self._rows:
            if row.keys:
                self._lines.extend(_lines_of(row, key_width, width))
            else:
                self._lines.extend([[], [(row.title, "section")]])
        del self._lines[0]
        self.num_lines = len(self._lines)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        index = y + self.scroll_offset.y
        parts = self._lines[index] if index < len(self._lines) else []
        line = [Segment(text, self.style_of(name) if name else None) for text, name in parts]
        return self.strip_of(line, self.scrollable_content_region.width)


def _lines_of(row: HelpRow, key_width: int, width: int) -> list[list[tuple[str, str]]]:
    """Return a row's lines as (text, component) pairs: keys at the left, their effect at the right, both wrapped."""
    about = ((row.title, "key"), (f"  {row.tooltip}", ""), (f"  {row.key_id}", "id"))
    left = wrap(row.keys, key_width)
    right: list[list[tuple[str, str]]] = []
    texts = wrap("".join(text for text, _ in about), width - key_width - 2)
    rest = list(about)
    for text in texts:
        room, parts = len(text), []
        while room and rest:
            (part, name), *rest = rest
            parts.append((part[:room], name))
            if len(part) > room:
                rest = [(part[room:], name), *rest]
            room = max(room - len(part), 0)
        right.append(parts)
    return [[(f"{fit(keys or '', key_width)}  ", "key"), *(parts or ())] for keys, parts in zip_longest(left, right)]


class HelpScreen(Modal[None]):
    """The key list. The keys that opened it also close it."""

    BINDINGS = PAGE_BINDINGS

    def __init__(self, keymap: Mapping[str, str], focus: KeyPlace) -> None:
        super().__init__()
        self._rows = help_rows(keymap, focus)

    def compose(self) -> ComposeResult:
        with Vertical(classes="window tall") as window:
            window.border_title = "Keys"
            window.border_subtitle = "dim: its name for keymap in the configuration · esc closes"
            yield HelpLines(self._rows)
