"""Ask for one line of text, such as a label or a title."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input

from treechat.tui.bindings import ASK_BINDINGS
from treechat.tui.safe_text import one_line
from treechat.tui.screens.modal import Modal


class AskScreen(Modal[str | None]):
    """Returns the line, which may be "", or None if the screen was closed."""

    BINDINGS = ASK_BINDINGS

    def __init__(self, title: str, value: str = "", placeholder: str = "") -> None:
        super().__init__()
        self._title = title
        self._value = value
        self._placeholder = placeholder

    def compose(self) -> ComposeResult:
        with Vertical(classes="window") as window:
            window.border_title = self._title
            window.border_subtitle = "enter keeps · esc closes"
            yield Input(one_line(self._value), placeholder=self._placeholder)

    @on(Input.Submitted)
    def _done(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip())
