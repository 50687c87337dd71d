"""Load models in a thread: the first one, another one beside it, or another one in its place; and close them.

A load reports its progress, can be stopped at any step, and hands the model over to the window when it is ready.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from treechat.errors import ModelError, TreechatError

if TYPE_CHECKING:
    from treechat.chat.model.chat_model import ChatModel
    from treechat.chat.model.room import LoadNamed
    from treechat.models import Progress
    from treechat.tui.window import Window

T = TypeVar("T")

LoadModel = Callable[[Callable[["Progress"], None]], "ChatModel"]
"""Loads the first model in the calling thread and reports its progress."""


class LoadStopped(Exception):
    """Raised in the loading thread after the load was cancelled."""


class LoadAttempt:
    """One attempt to load a model.

    spec: the model's name or path, None for the default one.
    is_asked: the user chose the model while the app runs.
    once: the model is for one reply. The one before it is kept loaded if there is room.
    name: the name shown to the user; of a path, the last part.
    has_room: the model before it was closed to make room.
    text: the progress shown in the status line.
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
        """End the load at its next step. Files that were fetched completely stay; partial ones are never used."""
        self._stopped.set()

    def check(self) -> None:
        """Raises LoadStopped after `stop`."""
        if self.is_stopped:
            raise LoadStopped


class ModelLoader:
    """The model in use, and at most one load. A load begins after the thread of the previous one has ended.

    load: the load that runs.
    spec: the spec that the model in use was loaded by; None for the default one.
    parked: a loaded model, and its spec, that is used again after another model's one reply.
    lacks_room: whether two models do not fit into memory together; None asks the system.
    """

    def __init__(self, window: Window, spec: str | None, load_named: LoadNamed | None) -> None:
        """load_named: loads another model by its spec; None if this window can have one model only."""
        self._window = window
        self._load_named = load_named
        self._thread: threading.Thread | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self.load: LoadAttempt | None = None
        self.spec = spec
        self.parked: tuple[ChatModel, str | None] | None = None
        self.lacks_room: Callable[[str | None, Callable[[Progress], None]], bool] | None = None

    @property
    def can_switch(self) -> bool:
        """Whether another model can be loaded."""
        return self._load_named is not None

    @property
    def is_thread_alive(self) -> bool:
        """Whether the thread of the last load runs, also after the load was stopped."""
        return self._thread is not None and self._thread.is_alive()

    def is_in_use(self, spec: str) -> bool:
        model = self._window.chat.model
        return model is not None and spec in (model.name, self.spec)

    # Starting and stopping

    def load_first(self, load: LoadModel) -> None:
        """Load the first model."""
        self._start(LoadAttempt(self.spec, is_asked=False), lambda attempt: self._load(attempt, load))

    def switch(self, spec: str, *, once: bool = False) -> None:
        """Load another model. The one in use works until the other is ready, and stays in use if that fails.

        once: for one reply. The model in use is parked, if there is room for both.
        """
        if self.is_in_use(spec):
            self._window.say(f"{short_name(spec)} is in use")
            return
        if self.load is not None:
            self.load.stop()
        self._start(LoadAttempt(spec, is_asked=True, once=once), lambda attempt: self._load_beside(attempt, spec))

    def _start(self, attempt: LoadAttempt, run: Callable[[LoadAttempt], None]) -> None:
        # A daemon thread rather than a worker: leaving the app does not wait for a model that is still being loaded.
        before, self.load = self._thread, attempt
        self._window.draw_activity()

        def work() -> None:
            if before is not None:
                before.join()
            if not attempt.is_stopped:
                run(attempt)

        self._thread = threading.Thread(target=work, name="load-model", daemon=True)
        self._thread.start()

    def stop(self) -> bool:
        """Stop the load; False if there was none. The model in use stays in use."""
        window, attempt = self._window, self.load
        self.load = None
        if attempt is None:
            return False
        attempt.stop()
        if (model := window.chat.model) is not None:
            window.say(f"Stopped loading {attempt.name}. {model.name} stays in use.")
        elif attempt.has_room:
            window.say(f"Stopped loading {attempt.name}. The previous model is loaded again.")
        else:
            window.replies.is_queued = False
            window.status.model = "no model"
            window.say(f"Stopped loading {attempt.name}. f4 chooses a model.")
        window.draw_activity()
        window.draw_labels()
        return True

    # In the loading thread

    def _progress_of(self, attempt: LoadAttempt) -> Callable[[Progress], None]:
        """The callback that takes a load's progress. It raises LoadStopped if the load was stopped."""

        def report(progress: Progress) -> None:
            attempt.check()
            share = f" {100 * progress.done // progress.total}%" if progress.total else ""
            attempt.text = f"{progress.text}{share}"
            self._in_app(lambda _: self._window.draw_activity(), None)

        return report

    def _load(self, attempt: LoadAttempt, load: LoadModel) -> None:
        try:
            model = load(self._progress_of(attempt))
        except LoadStopped:
            return
        except Exception as error:  # noqa: BLE001 - a model's files can fail in any way; the tree stays readable
            self._in_app(self._failed, (attempt, _as_model_error(error)))
        else:
            self._hand_over(attempt, model)

    def _load_beside(self, attempt: LoadAttempt, spec: str) -> None:
        """Load a model beside the one in use, which is closed first if memory does not allow both."""
        from treechat.chat.model.room import load_another

        load = self._load_named
        assert load is not None, "the picker is not shown without it"
        closed: list[ChatModel] = []
        before = self.spec

        def make_room() -> None:
            attempt.check()
            self._in_app(self._give_up_model, closed)
            attempt.has_room = bool(closed)
            for model in closed:
                model.close()

        try:
            model = load_another(spec, load, make_room, self._progress_of(attempt), self.lacks_room)
        except Exception as error:  # noqa: BLE001 - a model's files can fail in any way; the one before stays
            self._in_app(self._failed, (attempt, _as_model_error(error)))
        else:
            if self._hand_over(attempt, model):
                return
        if closed:
            self._bring_back(before, load)

    def _bring_back(self, spec: str | None, load: LoadNamed) -> None:
        """Load the closed model again after the other one failed or was stopped, unless another load has begun."""
        again = LoadAttempt(spec, is_asked=False)

        def begin(_: None) -> None:
            self.load = self.load or again

        self._in_app(begin, None)
        if self.load is again:
            self._load(again, lambda progress: load(spec, progress))

    def _hand_over(self, attempt: LoadAttempt, model: ChatModel) -> bool:
        """Give the loaded model to the window; close it and return False if its load was stopped or the app left."""
        taken: list[bool] = []
        self._in_app(lambda _: taken.append(self._loaded(attempt, model)), None)
        if taken == [True]:
            return True
        model.close()
        return False

    def _in_app(self, call: Callable[[T], object], value: T) -> bool:
        """Call in the app's thread; False if the app was left in the meantime."""
        if not self._window.is_up:
            return False
        try:
            self._window.call_from_thread(call, value)
        except (RuntimeError, CancelledError):
            return False
        return True

    # In the app's thread

    def _loaded(self, attempt: LoadAttempt, model: ChatModel) -> bool:
        """Use the model; False if its load was stopped."""
        if attempt is not self.load:
            return False
        self.load = None
        before = self._window.chat.model
        if before is not None and attempt.once:
            self.parked = before, self.spec
        else:
            self._retire_parked()
        self._use(model, attempt.spec, " · once" if attempt.once else "")
        if before is not None and not attempt.once:
            self._retire(before)
        self._window.replies.send_queued()
        return True

    def use_parked(self) -> None:
        """Use the parked model again, and close the one that took its place."""
        assert self.parked is not None, "no model is parked"
        (model, spec), self.parked = self.parked, None
        before = self._window.chat.model
        self._use(model, spec)
        if before is not None:
            self._retire(before)

    def _use(self, model: ChatModel, spec: str | None, note: str = "") -> None:
        window = self._window
        window.kv_watch.stop_warming()
        window.chat.model, self.spec = model, spec
        kind = "  ·  text, no chat template" if model.is_text else ""
        window.status.model = f"{model.name}{note}{kind}"
        window.kv_watch.forget_costs()
        if not window.chat.tree.nodes:
            window.show_conversation()
        window.draw_activity()
        window.draw_labels()
        window.model_choice.model_loaded()
        window.freeze_garbage()

    def _failed(self, failure: tuple[LoadAttempt, TreechatError]) -> None:
        attempt, error = failure
        if attempt is not self.load:
            return
        window, self.load = self._window, None
        if (model := window.chat.model) is not None:
            window.tell(error, f"{model.name} stays in use.")
        elif attempt.has_room:
            window.tell(error, "The previous model is loaded again.")
        else:
            window.replies.is_queued = False
            window.status.model = "no model"
            window.tell(error, "Your conversations can be read; your text is kept. f4 chooses another model.")
        window.draw_activity()
        window.draw_labels()

    def draw_activity(self) -> None:
        """Set `loading` of the status line."""
        text = ""
        if self.load is not None:
            text = f"{self.load.text} · {'esc stops it' if self.load.is_asked else 'f4 stops it'}"
        self._window.status.set("loading", text)

    # Closing

    def _give_up_model(self, closed: list[ChatModel]) -> None:
        """Take the model out of use and append it to `closed`. Its replies are stopped and their text is kept."""
        window = self._window
        if (model := window.chat.model) is not None:
            window.kv_watch.stop_warming()
            window.replies.stop()
            window.chat.model = None
            closed.append(model)
            window.status.model = "unloaded to make room for another model"

    def _retire(self, model: ChatModel) -> None:
        """Close a model after the replies that it writes have ended."""
        replies = self._window.replies.streaming

        async def close() -> None:
            for reply in replies:
                await reply.wait()
            await asyncio.to_thread(model.close)

        task = asyncio.create_task(close(), name="retire-model")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    def _retire_parked(self) -> None:
        if self.parked is not None:
            self._retire(self.parked[0])
            self.parked = None

    async def close(self) -> None:
        """Close all models when the app is left, after its replies were stopped."""
        if self.load is not None:
            self.load.stop()
        self._retire_parked()
        if self._retiring:
            await asyncio.wait(self._retiring)
        if (model := self._window.chat.model) is not None:
            model.close()


def short_name(spec: str) -> str:
    """The last part of a path; any other spec as it is."""
    return Path(spec).name if spec.startswith(("/", ".", "~")) else spec


def _as_model_error(error: Exception) -> TreechatError:
    return error if isinstance(error, TreechatError) else ModelError(f"The model did not load: {error}")
