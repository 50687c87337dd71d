"""A list of choices, drawn line by line: the cost depends only on the visible lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip

from treechat.tui.safe_text import fit, one_line
from treechat.tui.widgets.line_scroll import LineScroll


class ListChoice(NamedTuple):
    """One choice.

    id: the screen returns it.
    text: the line.
    note: drawn dim after the text.
    """

    id: str
    text: str
    note: str = ""


class ChoiceList(LineScroll, can_focus=False):
    """The choices, one of them highlighted; `empty_text` if there are none."""

    prefix = "choices"
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"choices--{name}" for name in ("cursor", "note")}

    @dataclass
    class Clicked(Message):
        """A choice was clicked."""

        id: str

    def __init__(self) -> None:
        super().__init__()
        self.choices: Sequence[ListChoice] = ()
        self.index = 0
        self.empty_text = ""
        self.notes: dict[str, str] = {}

    @dataclass
    class Scrolled(Message):
        """The visible choices may have changed."""

    @property
    def without_note(self) -> list[str]:
        """Ids of the visible choices that have no note yet."""
        first = self.scroll_offset.y
        visible = self.choices[first : first + self.size.height]
        return [choice.id for choice in visible if not choice.note and choice.id not in self.notes]

    def add_notes(self, notes: Mapping[str, str]) -> None:
        """Add notes by choice id, found after the choices were shown."""
        self.notes.update(notes)
        self.refresh()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self.post_message(self.Scrolled())

    def on_resize(self) -> None:
        self.post_message(self.Scrolled())

    @property
    def chosen(self) -> ListChoice | None:
        """The highlighted choice; None if the list is empty."""
        return self.choices[self.index] if self.choices else None

    def show(self, choices: Sequence[ListChoice], empty_text: str = "") -> None:
        """Replace the choices and highlight the first."""
        self.choices, self.empty_text = choices, empty_text
        self.num_lines = max(len(choices), 1)
        self.go(0)
        self.refresh()

    def go(self, index: int) -> None:
        """Highlight a choice, modulo the number of choices, and scroll to it."""
        left, self.index = self.index, index % len(self.choices) if self.choices else 0
        self.scroll_to_region(Region(0, self.index, 1, 1), animate=False, force=True)
        for row in (left, self.index):
            self.redraw_lines(row - self.scroll_offset.y, row - self.scroll_offset.y + 1)

    def render_line(self, y: int) -> Strip:
        width, index = self.scrollable_content_region.width, y + self.scroll_offset.y
        if not self.choices:
            return self.strip_of([Segment(self.empty_text if y == 0 else "", self.style_of("note"))], width)
        if index >= len(self.choices):
            return Strip.blank(width, self.rich_style)
        choice = self.choices[index]
        # Cut long texts before control characters are escaped, which takes time linear in their length.
        note = choice.note or self.notes.get(choice.id, "")
        text, note = one_line(choice.text[: 4 * width]), one_line(note[: 4 * width])
        text_width = min(cell_len(text), width)
        line = [
            Segment(fit(text, text_width)),
            Segment(fit(f"  {note}", width - text_width), self.style_of("note")),
        ]
        if index == self.index:
            line = list(Segment.apply_style(line, self.style_of("cursor")))
        return self.strip_of(line, width)

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is not None and (index := offset.y + self.scroll_offset.y) < len(self.choices):
            self.go(index)
            self.post_message(self.Clicked(self.choices[index].id))
