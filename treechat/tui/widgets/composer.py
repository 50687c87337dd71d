"""The composer: the text area for the next message. Enter sends, ctrl+j breaks the line, pasted text stays text."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.content import Content
from textual.message import Message
from textual.widgets import TextArea

from treechat.tui.bindings import COMPOSER_BINDINGS
from treechat.tui.safe_text import as_input


class Composer(TextArea):
    """A text area that grows with its text. The app clears it after it accepted the text."""

    BINDINGS = COMPOSER_BINDINGS

    @dataclass
    class Submitted(Message):
        """Enter was pressed on this text."""

        text: str

    @dataclass
    class Recalled(Message):
        """Up was pressed in an empty composer."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(
            id=id,
            soft_wrap=True,
            show_line_numbers=False,
            compact=True,
            highlight_cursor_line=False,
            tab_behavior="focus",
        )
        self._border_texts = "", ""

    async def _on_key(self, event: events.Key) -> None:
        # A text area inserts enter as text before it checks bindings, so keys bound here must skip that.
        bound = self._bindings.key_to_bindings.get(event.key, [])
        if any(binding.action in ("submit", "newline") for binding in bound):
            event.prevent_default()

    def action_submit(self) -> None:
        if self.text.strip():
            self.post_message(self.Submitted(self.text))

    def action_newline(self) -> None:
        self.insert("\n")

    def action_recall(self) -> None:
        if self.text:
            self.action_cursor_up()
        else:
            self.post_message(self.Recalled())

    def set_border_texts(self, title: str, subtitle: str) -> None:
        """Set the texts in the border. Equal texts are skipped, because setting them would redraw the composer."""
        if (title, subtitle) != self._border_texts:
            self._border_texts = title, subtitle
            self.border_title, self.border_subtitle = Content(title), Content(subtitle)

    def put(self, text: str) -> None:
        """Replace the text and put the cursor at its end."""
        self.load_text(as_input(text))
        self.move_cursor(self.document.end)
