"""The token view: the tokens of a reply, their probabilities, and the likely alternatives of each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from treechat.chat.forking import Alternative, Alternatives, MessageToken
from treechat.errors import TreechatError
from treechat.tui.bindings import TOKEN_BINDINGS
from treechat.tui.safe_text import fit
from treechat.tui.screens.modal import Modal
from treechat.tui.screens.token_text import TokenText, next_doubt, visible

REST_S = 0.15
"""Seconds that the cursor must rest on a token before its alternatives are looked up."""

BAR_LEN = 8


class ForkPoint(NamedTuple):
    """A fork inside a reply.

    kept_len: number of kept tokens.
    alternative: the token after them; None: the model samples it.
    """

    kept_len: int
    alternative: Alternative | None


class TokenScreen(Modal[ForkPoint | None]):
    """Returns the fork to make, or None."""

    BINDINGS = TOKEN_BINDINGS

    def __init__(
        self, pieces: Sequence[MessageToken], stop_ids: Collection[int], find: Callable[[int], Awaitable[Alternatives]]
    ) -> None:
        """Show the tokens of a reply.

        pieces: its tokens in order.
        stop_ids: the tokens that end a reply.
        find: returns the alternatives of the token at an index; raises TreechatError.
        """
        super().__init__()
        self.pieces = pieces
        self.choices: list[Alternative] = []
        self.choice = 0
        self._stop_ids = stop_ids
        self._find = find
        self._found: dict[int, Alternatives] = {}
        self.note = ""

    def compose(self) -> ComposeResult:
        with Vertical(id="tokens", classes="window full") as window:
            window.border_title = "Tokens"
            with Horizontal():
                probabilities = [piece.probability for piece in self.pieces]
                yield TokenText([piece.text for piece in self.pieces], probabilities)
                yield Static(id="alternatives")
            yield Static(id="legend")

    @property
    def view(self) -> TokenText:
        return self.query_one(TokenText)

    @property
    def index(self) -> int:
        """Index of the token under the cursor."""
        return self.view.index

    def on_mount(self) -> None:
        legend = Text.assemble(
            ("underlined", Style(underline=True)),
            " < 50% · ",
            ("bold too", Style(underline=True, bold=True)),
            " < 20% · n N goes to them · if ●, a lookup computes one token",
            no_wrap=True,
            overflow="ellipsis",
        )
        self.query_one("#legend", Static).update(legend)
        first = next_doubt(self.view.probabilities, -1, 1)
        self.call_after_refresh(self.go, first or 0)

    def go(self, index: int) -> None:
        """Put the cursor on a token. Its alternatives are looked up if the cursor stays there."""
        self.view.point(min(max(index, 0), len(self.pieces) - 1))
        self._take(self._found.get(self.index))
        if self.index not in self._found:
            self.run_worker(self._look_up(self.index), group="alternatives", exclusive=True, exit_on_error=False)

    async def _look_up(self, index: int) -> None:
        await asyncio.sleep(REST_S)
        try:
            self._found[index] = await self._find(index)
        except TreechatError as error:
            if index == self.index:
                self.note = str(error)
                self._fill()
            return
        if index == self.index:
            self._take(self._found[index])

    def _take(self, found: Alternatives | None) -> None:
        piece = self.pieces[self.index]
        self.choices = list(found.choices) if found else []
        ids = [choice.id for choice in self.choices]
        if piece.id not in ids and piece.logprob is not None:
            # With a high temperature, the sampled token may not be among the likeliest.
            self.choices.append(Alternative(piece.id, piece.text, piece.logprob))
            ids.append(piece.id)
        self.choice = ids.index(piece.id) if piece.id in ids else 0
        usage = found.usage if found else None
        reused = (usage.cached_tokens + usage.restored_tokens) if usage else 0
        self.note = f"reused {reused:,} · computed {usage.computed_tokens:,}" if usage else "looking up …"
        self._fill()

    # Drawing

    def _fill(self) -> None:
        panel = self.query_one("#alternatives", Static)
        width = max(panel.content_size.width, 24)
        piece = self.pieces[self.index]
        lines = [Text(f"token {self.index + 1:,} of {len(self.pieces):,}", style="bold")]
        room = panel.content_size.height - 2 if panel.content_size.height > 2 else len(self.choices)
        first = max(min(self.choice - room // 2, len(self.choices) - room), 0)
        for number, choice in list(enumerate(self.choices))[first : first + room]:
            lines.append(self._line(choice, number == self.choice, choice.id == piece.id, width))
        lines.append(Text(fit(self.note, width).rstrip(), style="dim"))
        panel.update(Text("\n").join(lines))
        is_same = bool(self.choices) and self.choices[self.choice].id == piece.id
        effect = "continues after it" if is_same or not self.choices else "forks with it"
        window = self.query_one("#tokens")
        window.border_subtitle = f"←→ token · ↑↓ alternative · enter {effect} · esc closes"

    def _line(self, choice: Alternative, is_cursor: bool, is_taken: bool, width: int) -> Text:
        filled = round(choice.probability * BAR_LEN)
        lead = f"{'›' if is_cursor else ' '}{'●' if is_taken else ' '}{100 * choice.probability:6.2f}% "
        bar = "█" * filled + "░" * (BAR_LEN - filled)
        name = fit(self._label(choice), width - cell_len(lead) - BAR_LEN - 1)
        line = Text.assemble(lead, bar, " ", name, no_wrap=True)
        if is_cursor:
            line.stylize("reverse")
        return line

    def _label(self, choice: Alternative) -> str:
        if choice.id in self._stop_ids:
            return "(the reply ends)"
        if not choice.text or "\ufffd" in choice.text:
            return f"(token {choice.id}, part of a character)"
        return visible(choice.text).replace("\n", "").replace(" ", "␣")

    # Keys

    def action_token(self, by: int) -> None:
        self.go(self.index + by)

    def action_line(self, by: int) -> None:
        self.go(self.view.above(by))

    def action_choice(self, by: int) -> None:
        if self.choices:
            self.choice = (self.choice + by) % len(self.choices)
            self._fill()

    def action_doubt(self, by: int) -> None:
        target = next_doubt(self.view.probabilities, self.index, by)
        if target is None:
            self.app.bell()
        else:
            self.go(target)

    def action_edge(self, by: int) -> None:
        self.go(0 if by < 0 else len(self.pieces) - 1)

    def action_fork(self) -> None:
        chosen = self.choices[self.choice] if self.choices else None
        if chosen is None or chosen.id == self.pieces[self.index].id:
            self.dismiss(ForkPoint(self.index + 1, None))
        else:
            self.dismiss(ForkPoint(self.index, chosen))

    def action_close(self) -> None:
        self.dismiss(None)

    @on(TokenText.Pointed)
    def _pointed(self, event: TokenText.Pointed) -> None:
        self.go(event.index)
