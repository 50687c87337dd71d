"""Choose the word at which to split a message."""

from __future__ import annotations

from collections.abc import Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical

from treechat.tui.bindings import SPLIT_BINDINGS
from treechat.tui.screens.modal import Modal
from treechat.tui.screens.token_text import TokenText


class SplitScreen(Modal[int | None]):
    """Returns the index of the first excluded word (at least 1), or None."""

    BINDINGS = SPLIT_BINDINGS

    def __init__(self, words: Sequence[str], then: str) -> None:
        """Show the words.

        words: at least two; joined they are the text.
        then: the effect of enter, in the border.
        """
        super().__init__()
        self._words = words
        self._then = then

    def compose(self) -> ComposeResult:
        with Vertical(id="split", classes="window full") as window:
            window.border_title = "Split before the marked word"
            window.border_subtitle = f"←→ word · ↑↓ line · enter {self._then} · esc closes"
            yield TokenText(self._words, [None] * len(self._words))

    @property
    def view(self) -> TokenText:
        return self.query_one(TokenText)

    def on_mount(self) -> None:
        self.call_after_refresh(self.go, max(len(self._words) // 2, 1))

    def go(self, index: int) -> None:
        index = min(max(index, 1), len(self._words) - 1)
        self.view.rest_from = index
        self.view.point(index)

    def action_word(self, by: int) -> None:
        self.go(self.view.index + by)

    def action_line(self, by: int) -> None:
        self.go(self.view.above(by))

    def action_edge(self, by: int) -> None:
        self.go(1 if by < 0 else len(self._words) - 1)

    def action_split(self) -> None:
        self.dismiss(self.view.index)

    def action_close(self) -> None:
        self.dismiss(None)

    @on(TokenText.Pointed)
    def _pointed(self, event: TokenText.Pointed) -> None:
        self.go(event.index)
