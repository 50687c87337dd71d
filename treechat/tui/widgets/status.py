"""The top line (title, size) and the status line (activity, model, memory, cost of the row under the cursor)."""

from __future__ import annotations

from typing import Literal

from rich.cells import cell_len
from rich.text import Text
from textual.reactive import reactive
from textual.widget import Widget

from treechat.tui.safe_text import fit, one_line

Slot = Literal["notice", "warming", "replaying", "writing", "importing", "loading"]

ACTIVITIES: tuple[tuple[Slot, ...], ...] = (("warming", "replaying", "writing"), ("importing",), ("loading",))
"""Which activity the status line shows.

Each group shows its first slot with a text; the groups are joined with " · ". The slot `notice` is not among them: its
text replaces all of them until any other slot is set.
"""


class StatusLine(Widget):
    """One line. If it is too long, its left part is cut.

    activity: the current activities, by the rule of `ACTIVITIES`. model: the model in use. memory: the slots in use.
    row: the cost of a reply at the node under the cursor.
    """

    activity = reactive("")
    model = reactive("")
    memory = reactive("")
    row = reactive("")

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._texts: dict[Slot, str] = {}

    def set(self, slot: Slot, text: str) -> None:
        """Set the text of an activity; "" clears it."""
        if slot != "notice":
            self._texts.pop("notice", None)
        self._texts[slot] = text
        if notice := self._texts.get("notice"):
            self.activity = notice
            return
        shown = (next((self._texts[slot] for slot in group if self._texts.get(slot)), "") for group in ACTIVITIES)
        self.activity = " · ".join(filter(None, shown))

    def render(self) -> Text:
        width = self.size.width - 2
        right = self.row or "f1 help"
        left = "  ·  ".join(one_line(part) for part in (self.activity, self.model, self.memory) if part)
        room = max(width - cell_len(right) - 2, 0)
        return Text(f" {fit(left, room)}  {right} ", no_wrap=True, overflow="crop", end="")


class TopLine(Widget):
    """The conversation's title and size."""

    title_text = reactive("")
    figures = reactive("")

    def render(self) -> Text:
        width = self.size.width - 2
        text = Text(" ", no_wrap=True, overflow="crop", end="")
        title = fit(one_line(self.title_text), max(width - cell_len(self.figures) - 14, 0))
        text.append("treechat", style="bold")
        text.append(f"    {title}  ")
        text.append(self.figures, style="dim")
        return text
