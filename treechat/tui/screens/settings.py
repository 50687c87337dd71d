"""System prompt and sampling of a conversation or of the next reply. An empty field shows its fallback."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, Label, TextArea

from treechat.config import expected, read_value
from treechat.errors import ConfigError, ModelError
from treechat.tui.bindings import SETTING_BINDINGS
from treechat.tui.safe_text import as_input, one_line
from treechat.tui.screens.ask import AskScreen
from treechat.tui.screens.modal import Modal
from treechat.tui.screens.pick import PickScreen, model_picker
from treechat.tui.widgets.choice_list import ListChoice

FIELD_ROWS = (
    ("temperature", "max_tokens"),
    ("top_p", "top_k"),
    ("min_p", "repetition_penalty"),
    ("seed", None),
)
NAMES = {
    "temperature": "Temperature",
    "top_p": "Top-p",
    "top_k": "Top-k",
    "min_p": "Min-p",
    "repetition_penalty": "Repetition",
    "max_tokens": "Max tokens",
    "seed": "Seed",
}
Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ChosenSettings:
    """The result of the screen.

    values: the filled-in values by setting name.
    system_prompt: the prompt; may be "".
    model: the model's name; "" for the model in use.
    once: apply them to the next reply only.
    """

    values: Values
    system_prompt: str
    model: str
    once: bool


@dataclass(frozen=True, slots=True)
class InitialSettings:
    """The values that the screen shows first.

    model: the model in use.
    own_model: the conversation's model; "" for none.
    models: the models to choose from; empty if there is only one.
    system_prompt: the current prompt.
    values: the values set so far.
    fallbacks: the effective value of each empty field, as text.
    has_messages: the conversation has messages, so a changed system prompt starts a new root.
    presets: the values of each preset by name.
    """

    model: str
    own_model: str
    models: Sequence[ListChoice]
    system_prompt: str
    values: Values
    fallbacks: Mapping[str, str]
    has_messages: bool
    presets: Mapping[str, Values]


class SettingsScreen(Modal[ChosenSettings | None]):
    """One field per setting. Each is checked when it changes, and all before the values are returned."""

    BINDINGS = SETTING_BINDINGS

    def __init__(self, initial: InitialSettings, save: Callable[[str, Values], Mapping[str, Values]]) -> None:
        """initial: the values to show.

        save: writes a preset and returns all presets; raises ConfigError.
        """
        super().__init__()
        self._initial = initial
        self._presets = initial.presets
        self._save = save

    def compose(self) -> ComposeResult:
        with Vertical(classes="window", id="settings") as window:
            window.border_title = "Settings"
            window.border_subtitle = "enter keeps · ctrl+t once · f4 model · ctrl+o preset · f2 saves one · esc"
            with Horizontal(classes="row"):
                yield Label("Model")
                yield Input(
                    as_input(self._initial.own_model),
                    one_line(self._initial.model),
                    id="model",
                    compact=True,
                    disabled=not self._initial.models,
                )
            yield Label("System prompt" + ("  (a changed one starts a new root)" if self._initial.has_messages else ""))
            # tab moves to the next field, enter breaks the line, ctrl+s keeps the values.
            yield TextArea(
                as_input(self._initial.system_prompt), compact=True, tab_behavior="focus", id="system_prompt"
            )
            for names in FIELD_ROWS:
                with Horizontal(classes="row"):
                    for name in filter(None, names):
                        yield Label(NAMES[name])
                        value = self._initial.values.get(name)
                        yield Input(
                            "" if value is None else f"{value}",
                            self._initial.fallbacks.get(name, ""),
                            id=name,
                            compact=True,
                        )
            yield Label("", id="wrong", classes="wide", markup=False)
            yield Label("", id="note", classes="wide", markup=False)

    def on_mount(self) -> None:
        self.query_one("#temperature").focus()

    def field(self, name: str) -> Input:
        return self.query_one(f"#{name}", Input)

    @property
    def prompt(self) -> TextArea:
        return self.query_one(TextArea)

    # Checking

    def on_descendant_focus(self) -> None:
        focused = self.focused
        note = "ctrl+s keeps, enter makes a new line" if focused is self.prompt else ""
        if isinstance(focused, Input) and focused.id == "model":
            note = "Model: f4 lists all; empty: the model in use"
        elif isinstance(focused, Input) and focused.id in NAMES:
            note = f"{NAMES[focused.id]}: {expected(focused.id)}; empty: {focused.placeholder}"
        self.query_one("#note", Label).update(note)

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        self._check(event.input)

    def _check(self, field: Input) -> Any:
        """Return the field's value; None if it is empty or invalid. An invalid field is marked and its error shown."""
        field.remove_class("wrong")
        if field.id == "model":
            return None
        value = None
        if field.value.strip():
            try:
                value = read_value(str(field.id), field.value)
            except ConfigError as error:
                field.add_class("wrong")
                self.query_one("#wrong", Label).update(error.message)
        if not self.query(".wrong"):
            self.query_one("#wrong", Label).update("")
        return value

    def _values(self) -> dict[str, Any] | None:
        """Return all filled-in values; None if a field is invalid, which then gets the focus."""
        values = {name: self._check(self.field(name)) for name in NAMES}
        self._check_model()
        wrong = self.query(Input).filter(".wrong")
        if wrong:
            wrong.first().focus()
            return None
        return {name: value for name, value in values.items() if value is not None}

    def _check_model(self) -> None:
        """Mark the model field if its path does not exist. Uses no network: a hub id is not checked."""
        from treechat.models import is_ready

        field = self.field("model")
        spec = field.value.strip()
        if not spec or spec in {text for each in self._initial.models for text in (each.id, each.text)}:
            return
        try:
            is_ready(spec)
        except ModelError as error:
            field.add_class("wrong")
            self.query_one("#wrong", Label).update(str(error))

    # Keeping

    @on(Input.Submitted)
    def action_keep(self) -> None:
        self._done(once=False)

    def action_once(self) -> None:
        self._done(once=True)

    def _done(self, once: bool) -> None:
        values = self._values()
        if values is not None:
            self.dismiss(ChosenSettings(values, self.prompt.text.strip(), self.field("model").value.strip(), once))

    def action_close(self) -> None:
        self.dismiss(None)

    def action_model(self) -> None:
        if not self._initial.models:
            return

        def done(spec: str | None) -> None:
            if spec is not None:
                self.field("model").value = spec
                self.field("model").focus()

        self.app.push_screen(model_picker(self._initial.models, "uses it"), done)

    # Presets

    def action_preset(self) -> None:
        choices = [ListChoice(name, name, describe(values)) for name, values in self._presets.items()]
        choices.append(ListChoice("", "defaults", "removes all values of this conversation"))

        def find(query: str) -> list[ListChoice]:
            words = query.casefold().split()
            return [choice for choice in choices if all(word in choice.text.casefold() for word in words)]

        def done(name: str | None) -> None:
            if name is not None:
                self.put(self._presets.get(name, {}))

        self.app.push_screen(PickScreen("Presets", find, "type to narrow down", verb="uses it"), done)

    def put(self, values: Values) -> None:
        """Fill in a preset's values. A preset without a system prompt leaves the prompt unchanged."""
        for name in NAMES:
            value = values.get(name)
            self.field(name).value = "" if value is None else f"{value}"
        if "system_prompt" in values:
            self.prompt.load_text(as_input(values["system_prompt"]))

    def action_save(self) -> None:
        values = self._values()
        if values is None:
            return
        if self.prompt.text.strip():
            values = {"system_prompt": self.prompt.text.strip(), **values}

        def done(name: str | None) -> None:
            if not name:
                return
            try:
                self._presets = self._save(name, values)
            except ConfigError as error:
                self.query_one("#wrong", Label).update(str(error))

        self.app.push_screen(AskScreen("Save as a preset", "", "name"), done)


def describe(values: Values) -> str:
    """Return `temperature 0.2 · top p 0.9` and the beginning of the system prompt."""
    parts = [f"{key.replace('_', ' ')} {value}" for key, value in values.items() if key != "system_prompt"]
    if prompt := values.get("system_prompt"):
        parts.append(f"“{one_line(prompt)[:40]}”")
    return " · ".join(parts)
