"""Getting a model in the background: told as it goes, stoppable at any point, and handed over when it is up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from treechat.config import Config
from treechat.errors import ModelError, TreechatError
from treechat.tui.services.import_watch import Importing

if TYPE_CHECKING:
    from treechat.chat.model.chat_model import ChatModel
    from treechat.models import Progress

T = TypeVar("T")

LoadModel = Callable[[Callable[["Progress"], None]], "ChatModel"]
"""Blocks until the model is ready, and tells how far it is; runs in a thread."""


class LoadStopped(Exception):
    """Raised in the thread of a load that nobody waits for any more."""


class Load:
    """One try to get a model. name: what the user calls it, of a path the last part.

    spec: None for the default one. is_asked: the user chose it while the app runs. once: for one reply, so the model
    before is kept where there is room. has_room: it was closed for this one.
    """

    def __init__(self, spec: str | None, is_asked: bool, once: bool = False) -> None:
        self.spec, self.is_asked, self.once = spec, is_asked, once
        self.name = short_name(spec) if spec else "default model"
        self.has_room = False
        self.text = f"loading {self.name}"
        self._stopped = threading.Event()

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """It ends at its next step. What it has fetched whole stays, and nothing else is taken for whole."""
        self._stopped.set()

    def check(self) -> None:
        if self.is_stopped:
            raise LoadStopped


class Loading(Importing):
    """One load at a time: one that was stopped is waited for before the next one begins."""

    def __init__(self, store_path: Path | None, config: Config, conversation_id: str | None) -> None:
        super().__init__(store_path, config, conversation_id)
        self.load: Load | None = None
        self.spec: str | None = None
        self.parked: tuple[ChatModel, str | None] | None = None
        self._thread: threading.Thread | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    def load_first(self, load: LoadModel, spec: str | None) -> None:
        """Not a worker: leaving the app must not wait for a model that is still loading."""
        self._start(Load(spec, is_asked=False), lambda this: self._get(this, load))

    def _start(self, this: Load, run: Callable[[Load], None]) -> None:
        before, self.load = self._thread, this
        self.draw_activity()

        def work() -> None:
            if before is not None:
                before.join()
            if not this.is_stopped:
                run(this)

        self._thread = threading.Thread(target=work, name="load-model", daemon=True)
        self._thread.start()

    def stop_loading(self) -> bool:
        """Leave off; whether anything was being loaded. The model in use stays in use."""
        this, self.load = self.load, None
        if this is None:
            return False
        this.stop()
        if (model := self.chat.model) is not None:
            self.say(f"Stopped loading {this.name}. {model.name} stays in use.")
        elif this.has_room:
            self.say(f"Stopped loading {this.name}. The model before is loaded again.")
        else:
            self.is_queued = False
            self.status.model = "no model"
            self.say(f"Stopped loading {this.name}. f4 takes a model.")
        self.draw_activity()
        self.draw_labels()
        return True

    # In the thread

    def progress_of(self, this: Load) -> Callable[[Progress], None]:
        """What the loading tells its progress to; it raises where the load was stopped."""

        def tell(progress: Progress) -> None:
            this.check()
            share = f" {100 * progress.done // progress.total}%" if progress.total else ""
            this.text = f"{progress.text}{share}"
            self.from_thread(lambda _: self.draw_activity(), None)

        return tell

    def _get(self, this: Load, load: LoadModel) -> None:
        try:
            model = load(self.progress_of(this))
        except LoadStopped:
            return
        except Exception as error:  # noqa: BLE001 - a model's files can fail in any way; the tree stays readable
            self.from_thread(self._load_failed, (this, told(error)))
        else:
            self.hand_over(this, model)

    def hand_over(self, this: Load, model: ChatModel) -> bool:
        """The model is up: it is taken over, or closed where nobody waits for it."""
        taken: list[bool] = []
        self.from_thread(lambda _: taken.append(self._loaded(this, model)), None)
        if taken == [True]:
            return True
        model.close()
        return False

    def from_thread(self, tell: Callable[[T], object], what: T) -> bool:
        """Call in the app's thread; False where the app has been left meanwhile."""
        if not self.is_up:
            return False
        try:
            self.call_from_thread(tell, what)
        except (RuntimeError, CancelledError):
            return False
        return True

    # In the app's thread

    def _loaded(self, this: Load, model: ChatModel) -> bool:
        if this is not self.load:
            return False
        self.load = None
        before = self.chat.model
        if before is not None and this.once:
            self.parked = before, self.spec
        else:
            self.retire_parked()
        self.take_over(model, this.spec, " · once" if this.once else "")
        if before is not None and not this.once:
            self._retire(before)
        self.send_queued()
        return True

    def take_over(self, model: ChatModel, spec: str | None, note: str = "") -> None:
        """Go on with that model."""
        self.stop_warming()
        self.chat.model, self.spec = model, spec
        kind = "  ·  text, no chat template" if model.is_text else ""
        self.status.model = f"{model.name}{note}{kind}"
        self._costs_key = None
        if not self.chat.tree.nodes:
            self.show_conversation()
        self.draw_activity()
        self.draw_labels()
        self.model_is_up()

    def model_is_up(self) -> None:
        """Something for a subclass to hook on."""

    def retire_parked(self) -> None:
        """Let the model go that waited for another one's reply."""
        if self.parked is not None:
            self._retire(self.parked[0])
            self.parked = None

    def _load_failed(self, failure: tuple[Load, TreechatError]) -> None:
        this, error = failure
        if this is not self.load:
            return
        self.load = None
        if (model := self.chat.model) is not None:
            self.tell(error, f"{model.name} stays in use.")
        elif this.has_room:
            self.tell(error, "The model before is loaded again.")
        else:
            self.is_queued = False
            self.status.model = "no model"
            self.tell(error, "Your conversations can be read; what you wrote is kept. f4 takes another model.")
        self.draw_activity()
        self.draw_labels()

    def draw_activity(self) -> None:
        super().draw_activity()
        if self.load is not None:
            key = "esc stops it" if self.load.is_asked else "f4 stops it"
            self.status.activity = " · ".join(filter(None, (self.status.activity, self.load.text, key)))

    # Closing

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
        if self.load is not None:
            self.load.stop()
        self.retire_parked()
        if self._retiring:
            await asyncio.wait(self._retiring)
        if (model := self.chat.model) is not None:
            model.close()


def short_name(spec: str) -> str:
    """A path's last part; anything else as it is."""
    return Path(spec).name if spec.startswith(("/", ".", "~")) else spec


def told(error: Exception) -> TreechatError:
    return error if isinstance(error, TreechatError) else ModelError(f"The model did not load: {error}")
