"""Decide which model a conversation is written with: list the models, remember the choice, use one for one reply.

A conversation's own model is the one that its settings name, else the one that wrote the current branch.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from treechat.chat.session import Chat
from treechat.errors import TreechatError
from treechat.tui.saved_state import model_specs, save_model_spec
from treechat.tui.services.model_loader import short_name
from treechat.tui.widgets.choice_list import ListChoice
from treechat_engine import EngineError

if TYPE_CHECKING:
    from treechat.chat.model.chat_model import ChatModel
    from treechat.tui.window import Window

SET = "set for this conversation"
WROTE = "wrote this branch"
"""How a conversation's own model is known; the text that is shown."""


class ModelChoice:
    """Which model to use; `ModelLoader` loads it."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._once_chat: Chat | None = None
        self._spec_before: str | None = None

    # The models

    def choices(self) -> list[ListChoice]:
        """The models on this machine, and the default one even if it is not fetched yet.

        The conversation's own model comes first if it is not in use.
        """
        from treechat.models import DEFAULT_MODEL, installed

        notes = {model.name: [f"{model.size_bytes / 1e9:.1f} GB"] for model in installed()}
        notes.setdefault(DEFAULT_MODEL, ["downloaded when chosen"])
        own, why = self._own_model()
        known = model_specs()
        if own is not None and own not in notes and (own in known or why == SET):
            notes[own] = []
        model = self._window.chat.model
        in_use = model.name if model else None
        for name, note in ((in_use, "in use"), (own, why)):
            if name in notes:
                notes[name].append(note)
        names = sorted(notes, key=lambda name: name != own or name == in_use)
        return [ListChoice(known.get(name, name), name, " · ".join(notes[name])) for name in names]

    def _own_model(self) -> tuple[str | None, str]:
        """The name of the conversation's own model, None if it has none, and how it is known."""
        chat = self._window.chat
        if spec := chat.own.get("model"):
            return str(spec), SET
        for node_id in reversed(chat.tree.path(chat.current_id)):
            if chat.tree[node_id].role == "assistant" and (turn := chat.turn(node_id)) is not None:
                return turn.model, WROTE
        return None, WROTE

    # Choosing

    def choose(self, spec: str) -> None:
        """Use a model from now on. A conversation whose settings name a model has this one instead."""
        chat, models = self._window.chat, self._window.models
        if "model" in chat.own and chat.own["model"] != spec:
            chat.set_own(chat.own | {"model": spec})
        self._once_chat = None
        if models.parked is not None and spec in (models.parked[0].name, models.parked[1]):
            self._end_once()
        else:
            models.switch(spec)

    def settings_changed(self) -> None:
        """Use the model that the settings name, for one reply or from now on."""
        chat, models = self._window.chat, self._window.models
        if (once := chat.next_reply_values.get("model")) and not models.is_in_use(once):
            self._once_chat, self._spec_before = chat, models.spec
            name = chat.model.name if chat.model else "the previous model"
            models.switch(once, once=True)
            self._window.say(f"{short_name(once)} writes the next reply, then {name} is used again")
        elif (own := chat.own.get("model")) and "model" not in chat.next_reply_values and not models.is_in_use(own):
            self.choose(own)

    def model_loaded(self) -> None:
        """Save the spec of the model in use, and report it if the conversation has another model."""
        model, spec = self._window.chat.model, self._window.models.spec
        if model is not None and spec is not None:
            save_model_spec(model.name, spec)
        self.tell_other_model()

    # One reply

    def replies_ended(self, chat: Chat) -> None:
        """Use the previous model again if the reply that the other one was for has ended."""
        once = self._once_chat
        if once is None or self._window.models.load is not None or chat.streaming:
            return
        if chat is once and "model" in once.next_reply_values:
            return
        once.next_reply_values.pop("model", None)
        if chat.model is self._window.chat.model:
            self._end_once()

    def _end_once(self) -> None:
        """Use the previous model again. It is loaded again if it had to make room."""
        self._once_chat = None
        if self._window.models.parked is not None:
            self._window.models.use_parked()
            return
        from treechat.models import DEFAULT_MODEL

        self.choose(self._spec_before or DEFAULT_MODEL)

    # Reporting that the conversation has another model

    def tell_other_model(self) -> None:
        """If another model than the conversation's own is in use, show both and the cost of continuing."""
        window = self._window
        chat, model = window.chat, window.chat.model
        own, why = self._own_model()
        if model is not None and self._once_chat is chat:
            window.run_worker(self._tell_once(chat, model), group="costs")
        elif model is not None and own is not None and not window.models.is_in_use(own):
            window.run_worker(self._tell_cost(chat, model, own, why, chat.current_id), group="costs")

    async def _tell_once(self, chat: Chat, model: ChatModel) -> None:
        with suppress(TreechatError, EngineError):
            work = await _work(chat, chat.current_id)
            if chat is self._window.chat and chat.model is model:
                self._window.say(f"{model.name} is loaded for one reply" + (f"; it {work}." if work else "."))

    async def _tell_cost(self, chat: Chat, model: ChatModel, own: str, why: str, node_id: str | None) -> None:
        window = self._window
        with suppress(TreechatError, EngineError):
            work = await _work(chat, node_id)
            if chat is not window.chat or chat.model is not model:
                return
            name = short_name(own)
            lines = [f"{name} is {why}" if why == SET else f"{name} {why}"]
            lines[0] += f"; {model.name} is in use."
            if work:
                lines.append(f"Continuing with {model.name} {work}, once.")
            is_offered = window.models.can_switch and self.choices()[0].text == own
            lines.append(f"f4, enter loads {name}" if is_offered else "f4 chooses another model")
            window.notify("\n".join(lines), timeout=10, markup=False)


async def _work(chat: Chat, node_id: str | None) -> str:
    """The prompt tokens to compute for a reply at a node, as text; "" for a warm branch."""
    kv = chat.kv
    cost = await asyncio.to_thread(kv.cost, node_id) if kv is not None and node_id is not None else None
    if cost is None or cost.computed <= 1:
        return ""
    return f"computes {cost.computed:,} tokens" + (f", about {cost.seconds:.1f} s" if cost.seconds else "")
