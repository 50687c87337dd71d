"""Another model while the app runs: chosen from a list, loaded beside the one in use where memory allows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from treechat.chat.session import Chat
from treechat.config import Config
from treechat.errors import TreechatError
from treechat.tui.loading import Load, Loading, told
from treechat.tui.screens.pick import Choice, PickScreen
from treechat_engine import EngineError

if TYPE_CHECKING:
    from treechat.chat.model import ChatModel
    from treechat.chat.switching import Load as LoadNamed
    from treechat.models import Progress

STOP = "\0stop"
"""Stands among the models while one is being loaded: to leave off."""


class Switching(Loading):
    """One model is in use at a time; the one before is closed when the next is up, or where memory asks for it."""

    def __init__(self, store_path: Path | None, config: Config, conversation_id: str | None) -> None:
        super().__init__(store_path, config, conversation_id)
        self._load_named: LoadNamed | None = None
        self._spec: str | None = None

    def action_model(self) -> None:
        if self._load_named is None:
            self.say("This window has one model only")
            return
        wrote = self._model_of_path(self.chat)
        choices = _choices(self.chat.model.name if self.chat.model else None, wrote)
        if self.load is not None:
            choices.insert(0, Choice(STOP, f"Stop loading {self.load.name}", self.load.text))

        def find(query: str) -> list[Choice]:
            words = query.casefold().split()
            found = [choice for choice in choices if all(word in choice.text.casefold() for word in words)]
            if query.strip() and query.strip() not in (choice.text for choice in choices):
                found.append(Choice(query.strip(), query.strip(), "a hub id, a directory or a .gguf file"))
            return found

        def done(spec: str | None) -> None:
            if spec == STOP:
                self.stop_loading()
            elif spec is not None:
                self.switch_model(spec)

        self.push_screen(PickScreen("Model", find, "a name, hub id, directory or .gguf file", verb="loads it"), done)

    def switch_model(self, spec: str) -> None:
        """Go over to that model; the one in use works until the other one is up, and goes on if that fails."""
        if self.chat.model is not None and spec == self.chat.model.name:
            self.say(f"{spec} is in use")
            return
        if self.load is not None:
            self.load.stop()
        self._start(Load(spec, is_asked=True), lambda this: self._switch(this, spec))

    def _switch(self, this: Load, spec: str) -> None:
        from treechat.chat.switching import load_beside

        load = self._load_named
        assert load is not None, "the picker is not shown without it"
        closed: list[ChatModel] = []

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
                self._spec = spec
                return
        if closed:
            self._bring_back(load)

    def _bring_back(self, load: LoadNamed) -> None:
        """The model before had to make room for nothing: it is loaded again, unless another one is on its way."""
        again = Load(self._spec or "the model before", is_asked=False)

        def begin(_: None) -> None:
            self.load = self.load or again

        self.from_thread(begin, None)
        if self.load is again:
            self._get(again, lambda progress: load(self._spec, progress))

    lacks_room: Callable[[str | None, Callable[[Progress], None]], bool] | None = None
    """Whether both models do not fit into memory; None asks the system."""

    def _give_up(self, closed: list[ChatModel]) -> None:
        """Leave the model in use: replies that it writes are stopped, and what came of them is kept."""
        if (model := self.chat.model) is not None:
            self.stop_warming()
            self.stop_writing()
            self.chat.model = None
            closed.append(model)
            self.status.model = "makes room for another model"

    # A conversation that another model made

    @staticmethod
    def _model_of_path(chat: Chat) -> str | None:
        """The model that wrote the last reply above the current node."""
        for node_id in reversed(chat.tree.path(chat.current_id)):
            if chat.tree[node_id].role == "assistant" and (turn := chat.turn(node_id)) is not None:
                return turn.model
        return None

    def switch_to(self, conversation_id: str | None) -> None:
        super().switch_to(conversation_id)
        self.tell_other_model()

    def model_is_up(self) -> None:
        self.tell_other_model()

    def tell_other_model(self) -> None:
        """What going on with this model would take where another one wrote the branch."""
        chat, model = self.chat, self.chat.model
        wrote = self._model_of_path(chat)
        if model is not None and wrote is not None and wrote != model.name:
            self.run_worker(self._tell_cost(chat, model, wrote, str(chat.current_id)), group="costs")

    async def _tell_cost(self, chat: Chat, model: ChatModel, wrote: str, node_id: str) -> None:
        with suppress(TreechatError, EngineError):
            cost = await asyncio.to_thread(chat.cost, node_id)
            if cost is None or cost.computed <= 1 or chat is not self.chat or chat.model is not model:
                return
            wait = f", about {cost.seconds:.1f} s" if cost.seconds else ""
            text = (
                f"{wrote} wrote this branch. Going on with {model.name} computes {cost.computed:,} tokens{wait}, once."
            )
            self.notify(f"{text}\nf4 takes another model", timeout=10, markup=False)


def _choices(in_use: str | None, wrote: str | None) -> list[Choice]:
    """The models on this machine, the default one also before it was fetched."""
    from treechat.models import DEFAULT_MODEL, installed

    sizes = {model.name: f"{model.size_bytes / 1e9:.1f} GB" for model in installed()}
    sizes.setdefault(DEFAULT_MODEL, "fetched when it is chosen")
    notes = {name: [size] for name, size in sizes.items()}
    for name, note in ((in_use, "in use"), (wrote, "wrote this branch")):
        if name in notes:
            notes[name].append(note)
    return [Choice(name, name, " · ".join(parts)) for name, parts in notes.items()]
