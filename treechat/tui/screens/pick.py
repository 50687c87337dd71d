"""Choosing from a list that a few typed letters narrow down: conversations, or messages that were searched for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from treechat.tui.plain import one_line

MOST = 200
"""Choices shown at once; typing finds the others."""


class Choice(NamedTuple):
    """`id` is what the screen returns; `note` stands dim behind the text."""

    id: str
    text: str
    note: str = ""


class PickScreen(ModalScreen[str | None]):
    """Returns the id of what was chosen, or None. `find` gives the choices for what is typed, "" included."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Close"),
        Binding("down,ctrl+n", "step(1)", "Next"),
        Binding("up,ctrl+p", "step(-1)", "Previous"),
    ]

    def __init__(
        self, title: str, find: Callable[[str], Sequence[Choice]], placeholder: str, verb: str = "opens"
    ) -> None:
        super().__init__()
        self._title = title
        self._find = find
        self._placeholder = placeholder
        self._verb = verb
        self._choices: list[Choice] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="window") as window:
            window.border_title = self._title
            window.border_subtitle = f"enter {self._verb} · esc closes"
            yield Input(placeholder=self._placeholder)
            options = OptionList(markup=False)
            options.can_focus = False
            yield options

    def on_mount(self) -> None:
        self._fill("")

    @on(Input.Changed)
    def _narrow(self, event: Input.Changed) -> None:
        self._fill(event.value)

    def _fill(self, query: str) -> None:
        self._choices = list(self._find(query))[:MOST]
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options([Option(self._prompt(choice)) for choice in self._choices])
        if self._choices:
            options.highlighted = 0
        else:
            options.add_option(
                Option(Text("nothing found" if query else "nothing here yet", style="dim"), disabled=True)
            )

    @staticmethod
    def _prompt(choice: Choice) -> Text:
        text = Text(one_line(choice.text), no_wrap=True, overflow="ellipsis")
        text.append(f"  {one_line(choice.note)}", style="dim")
        return text

    def action_step(self, by: int) -> None:
        options = self.query_one(OptionList)
        if self._choices:
            options.highlighted = ((options.highlighted or 0) + by) % len(self._choices)

    @on(Input.Submitted)
    def _choose(self) -> None:
        highlighted = self.query_one(OptionList).highlighted
        if self._choices and highlighted is not None:
            self.dismiss(self._choices[highlighted].id)

    @on(OptionList.OptionSelected)
    def _clicked(self, event: OptionList.OptionSelected) -> None:
        if self._choices:
            self.dismiss(self._choices[event.option_index].id)


def model_picker(choices: Sequence[Choice], verb: str = "loads it") -> PickScreen:
    """A list of models that takes any other name, too."""

    def find(query: str) -> list[Choice]:
        words = query.casefold().split()
        found = [choice for choice in choices if all(word in choice.text.casefold() for word in words)]
        if query.strip() and query.strip() not in (choice.text for choice in choices):
            found.append(Choice(query.strip(), query.strip(), "a hub id, a directory or a .gguf file"))
        return found

    return PickScreen("Model", find, "a name, hub id, directory or .gguf file", verb=verb)
