"""The model: loaded after the first frame, and changed for another while the app runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from treechat.chat.session import Chat
from treechat.config import Config
from treechat.errors import ModelError, TreechatError
from treechat.tui.importing import Importing
from treechat.tui.screens.pick import Choice, PickScreen
from treechat_engine import EngineError

if TYPE_CHECKING:
    from treechat.chat.model import ChatModel
    from treechat.chat.switching import Load
    from treechat.models import Progress

T = TypeVar("T")

LoadModel = Callable[[Callable[["Progress"], None]], "ChatModel"]
"""Blocks until the model is ready, and tells how far it is; runs in a thread."""


class Switching(Importing):
    """One model is in use at a time; the one before is closed when the next is up, or where memory asks for it."""

    def __init__(self, store_path: Path | None, config: Config, conversation_id: str | None) -> None:
        super().__init__(store_path, config, conversation_id)
        self._load_named: Load | None = None
        self._spec: str | None = None
        self._loading = ""
        self._retiring: set[asyncio.Task[None]] = set()

    # The first one

    def load_first(self, load: LoadModel, name: str) -> None:
        """Not a worker: leaving the app must not wait for a model that is still loading."""
        self._start(f"loading {name}", lambda: self._load(load))

    def _start(self, text: str, run: Callable[[], None]) -> None:
        self._loading = text
        self.draw_activity()
        threading.Thread(target=run, name="load-model", daemon=True).start()

    def _watch_loading(self, progress: Progress) -> None:
        self._from_thread(self._progressed, progress)

    def _load(self, load: LoadModel) -> None:
        try:
            model = load(self._watch_loading)
        except Exception as error:  # noqa: BLE001 - a model's files can fail in any way; the tree stays readable
            self._from_thread(self._load_failed, _told(error))
        else:
            self._hand_over(model)

    def _hand_over(self, model: ChatModel) -> None:
        if not self._from_thread(self._loaded, model):
            model.close()

    def _from_thread(self, tell: Callable[[T], None], what: T) -> bool:
        """Call in the app's thread; False where the app has been left meanwhile."""
        if not self.is_up:
            return False
        try:
            self.call_from_thread(tell, what)
        except (RuntimeError, CancelledError):
            return False
        return True

    def _progressed(self, progress: Progress) -> None:
        share = f" {100 * progress.done // progress.total}%" if progress.total else ""
        self._loading = f"{progress.text}{share}"
        self.draw_activity()

    def _loaded(self, model: ChatModel) -> None:
        self._loading = ""
        before, self.chat.model = self.chat.model, model
        kind = "  ·  text, no chat template" if model.is_text else ""
        self.status.model = f"{model.name}{kind}"
        if before is not None:
            self.stop_warming()
            self._retire(before)
        self._costs_key = None
        if not self.chat.tree.nodes:
            self.show_conversation()
        self.draw_activity()
        self.draw_labels()
        self.tell_other_model()
        self.send_queued()

    def _load_failed(self, error: TreechatError) -> None:
        self._loading = ""
        if (model := self.chat.model) is not None:
            self.tell(error, f"{model.name} stays in use.")
        else:
            self.is_queued = False
            self.status.model = "no model"
            self.tell(error, "Your conversations can be read; what you wrote is kept. f4 takes another model.")
        self.draw_activity()
        self.draw_labels()

    def draw_activity(self) -> None:
        super().draw_activity()
        if self._loading:
            self.status.activity = " · ".join(filter(None, (self.status.activity, self._loading)))

    # Another one

    def action_model(self) -> None:
        if self._load_named is None:
            self.say("This window has one model only")
            return
        if self._loading:
            self.say(f"{self._loading} · then f4 again")
            return
        wrote = self._model_of_path(self.chat)
        choices = _choices(self.chat.model.name if self.chat.model else None, wrote)

        def find(query: str) -> list[Choice]:
            words = query.casefold().split()
            found = [choice for choice in choices if all(word in choice.text.casefold() for word in words)]
            if query.strip() and query.strip() not in (choice.text for choice in choices):
                found.append(Choice(query.strip(), query.strip(), "a hub id, a directory or a .gguf file"))
            return found

        def done(spec: str | None) -> None:
            if spec is not None:
                self.switch_model(spec)

        self.push_screen(PickScreen("Model", find, "a name, hub id, directory or .gguf file", verb="loads it"), done)

    def switch_model(self, spec: str) -> None:
        """Go over to that model; the one in use works until the other one is up, and goes on if that fails."""
        if self.chat.model is not None and spec == self.chat.model.name:
            self.say(f"{spec} is in use")
            return
        self._start(f"loading {spec}", lambda: self._switch(spec))

    def _switch(self, spec: str) -> None:
        from treechat.chat.switching import load_beside

        load = self._load_named
        assert load is not None, "the picker is not shown without it"
        closed: list[ChatModel] = []

        def make_room() -> None:
            self._from_thread(self._give_up, closed)
            for model in closed:
                model.close()

        try:
            model = load_beside(spec, load, make_room, self._watch_loading, self.lacks_room)
        except Exception as error:  # noqa: BLE001 - a model's files can fail in any way; the one before stays
            if closed:
                self._from_thread(self.tell, _told(error))
                self._load(lambda progress: load(self._spec, progress))
            else:
                self._from_thread(self._load_failed, _told(error))
        else:
            self._spec = spec
            self._hand_over(model)

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

    def _retire(self, model: ChatModel) -> None:
        """Close a model when the replies that it writes are done."""
        replies = [reply for chat in {*self._writing, self.chat} for reply in chat.replies.values()]

        async def close() -> None:
            for reply in replies:
                await reply.wait()
            await asyncio.to_thread(model.close)

        task = asyncio.create_task(close(), name="retire-model")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def models_closed(self) -> None:
        """When the app is left, its replies stopped."""
        if self._retiring:
            await asyncio.wait(self._retiring)
        if (model := self.chat.model) is not None:
            model.close()

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


def _told(error: Exception) -> TreechatError:
    return error if isinstance(error, TreechatError) else ModelError(f"The model did not load: {error}")


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
