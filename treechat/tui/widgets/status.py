"""The line at the bottom: model, memory, what is going on; at the right what the row under the cursor would take."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text
from textual.reactive import reactive
from textual.widget import Widget

from treechat.tui.safe_text import fit, one_line


class StatusLine(Widget):
    """One line; what does not fit is cut from the left part."""

    model = reactive("")
    memory = reactive("")
    activity = reactive("")
    row = reactive("")

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
