"""Another model while the app runs: chosen from a list, loaded beside the one in use where memory allows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from treechat.config import Config
from treechat.tui.saved_state import model_specs
from treechat.tui.screens.pick import model_picker
from treechat.tui.services.model_loader import Load, Loading, short_name, told
from treechat.tui.widgets.choice_list import ListChoice

if TYPE_CHECKING:
    from treechat.chat.model.chat_model import ChatModel
    from treechat.chat.model.room import Load as LoadNamed
    from treechat.models import Progress

STOP = "\0stop"
"""Stands among the models while one is being loaded: to leave off."""


class Switching(Loading):
    """One model is in use at a time; the one before is closed when the next is up, or where memory asks for it."""

    lacks_room: Callable[[str | None, Callable[[Progress], None]], bool] | None = None
    """Whether both models do not fit into memory; None asks the system."""

    def __init__(self, store_path: Path | None, config: Config, conversation_id: str | None) -> None:
        super().__init__(store_path, config, conversation_id)
        self._load_named: LoadNamed | None = None

    # Choosing

    def action_model(self) -> None:
        if self._load_named is None:
            self.say("This window has one model only")
            return
        choices = self.model_choices()
        if self.load is not None:
            choices.insert(0, ListChoice(STOP, f"Stop loading {self.load.name}", self.load.text))

        def done(spec: str | None) -> None:
            if spec == STOP:
                self.stop_loading()
            elif spec is not None:
                self.switch_model(spec)

        self.ask(model_picker(choices), done)

    def model_choices(self) -> list[ListChoice]:
        """The models on this machine, the default one also before it was fetched; first the one that the conversation
        was written with, if it is not in use."""
        from treechat.models import DEFAULT_MODEL, installed

        notes = {model.name: [f"{model.size_bytes / 1e9:.1f} GB"] for model in installed()}
        notes.setdefault(DEFAULT_MODEL, ["fetched when it is chosen"])
        wanted, why = self.wanted_model()
        known = model_specs()
        if wanted is not None and wanted not in notes and (wanted in known or why == "set for this conversation"):
            notes[wanted] = []
        in_use = self.chat.model.name if self.chat.model else None
        for name, note in ((in_use, "in use"), (wanted, why)):
            if name in notes:
                notes[name].append(note)
        names = sorted(notes, key=lambda name: name != wanted or name == in_use)
        return [ListChoice(known.get(name, name), name, " · ".join(notes[name])) for name in names]

    def wanted_model(self) -> tuple[str | None, str]:
        """The model that this conversation is to be written with, and how that is known."""
        return None, ""

    # Going over

    def is_in_use(self, spec: str) -> bool:
        model = self.chat.model
        return model is not None and spec in (model.name, self.spec)

    def switch_model(self, spec: str, *, once: bool = False) -> None:
        """Go over to that model; the one in use works until the other one is up, and goes on if that fails.

        once: for one reply; the model before waits for it, where there is room, and comes back.
        """
        if self.is_in_use(spec):
            self.say(f"{short_name(spec)} is in use")
            return
        if self.load is not None:
            self.load.stop()
        self._start(Load(spec, is_asked=True, once=once), lambda this: self._switch(this, spec))

    def _switch(self, this: Load, spec: str) -> None:
        from treechat.chat.model.room import load_beside

        load = self._load_named
        assert load is not None, "the picker is not shown without it"
        closed: list[ChatModel] = []
        before = self.spec

        def make_room() -> None:
            this.check()
            self.from_thread(self._give_up, closed)
            this.has_room = bool(closed)
            for model in closed:
                model.close()

        try:
            model = load_beside(spec, load, make_room, self.progress_of(this), self.lacks_room)
        except Exception as error:  # noqa: BLE001 - a model's files can fail in any way; the one before stays
            self.from_thread(self._load_failed, (this, told(error)))
        else:
            if self.hand_over(this, model):
                return
        if closed:
            self._bring_back(before, load)

    def _bring_back(self, spec: str | None, load: LoadNamed) -> None:
        """The model before had to make room for nothing: it is loaded again, unless another one is on its way."""
        again = Load(spec, is_asked=False)

        def begin(_: None) -> None:
            self.load = self.load or again

        self.from_thread(begin, None)
        if self.load is again:
            self._get(again, lambda progress: load(spec, progress))

    def _give_up(self, closed: list[ChatModel]) -> None:
        """Leave the model in use: replies that it writes are stopped, and what came of them is kept."""
        if (model := self.chat.model) is not None:
            self.stop_warming()
            self.stop_writing()
            self.chat.model = None
            closed.append(model)
            self.status.model = "makes room for another model"
