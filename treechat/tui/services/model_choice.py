"""Which model a conversation is written with: remembered, offered when another is in use, taken for one reply."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from treechat.chat.events import Cost
from treechat.chat.session import Chat
from treechat.config import Config
from treechat.errors import TreechatError
from treechat.tui.saved_state import save_model_spec
from treechat.tui.services.model_loader import short_name
from treechat.tui.services.model_switching import Switching
from treechat.tui.widgets.choice_list import ListChoice
from treechat_engine import EngineError

if TYPE_CHECKING:
    from treechat.chat.model.chat_model import ChatModel

SET = "set for this conversation"
WROTE = "wrote this branch"


class Conversing(Switching):
    """A conversation's own model is what the settings say, else the one that wrote the current branch."""

    def __init__(self, store_path: Path | None, config: Config, conversation_id: str | None) -> None:
        super().__init__(store_path, config, conversation_id)
        self._once_chat: Chat | None = None
        self._spec_before: str | None = None

    def wanted_model(self) -> tuple[str | None, str]:
        if spec := self.chat.own.get("model"):
            return str(spec), SET
        return self._model_of_path(self.chat), WROTE

    @staticmethod
    def _model_of_path(chat: Chat) -> str | None:
        """The model that wrote the last reply above the current node."""
        for node_id in reversed(chat.tree.path(chat.current_id)):
            if chat.tree[node_id].role == "assistant" and (turn := chat.turn(node_id)) is not None:
                return turn.model
        return None

    def setting_models(self) -> list[ListChoice]:
        return self.model_choices() if self._load_named is not None else []

    def switch_to(self, conversation_id: str | None) -> None:
        super().switch_to(conversation_id)
        self.tell_other_model()

    def model_is_up(self) -> None:
        super().model_is_up()
        if self.chat.model is not None and self.spec is not None:
            save_model_spec(self.chat.model.name, self.spec)
        self.tell_other_model()

    def switch_model(self, spec: str, *, once: bool = False) -> None:
        """A conversation that has a model of its own has that one from now on."""
        if not once:
            if "model" in self.chat.own and self.chat.own["model"] != spec:
                self.chat.set_own(self.chat.own | {"model": spec})
            self._once_chat = None
            if self.parked is not None and spec in (self.parked[0].name, self.parked[1]):
                self._go_back()
                return
        super().switch_model(spec, once=once)

    # One reply

    def settings_applied(self) -> None:
        chat = self.chat
        if (once := chat.once.get("model")) and not self.is_in_use(once):
            self._once_chat, self._spec_before = chat, self.spec
            name = chat.model.name if chat.model else "the model before"
            self.switch_model(once, once=True)
            self.say(f"{short_name(once)} writes the next reply, then {name} goes on")
        elif (own := chat.own.get("model")) and "model" not in chat.once and not self.is_in_use(own):
            self.switch_model(own)

    def replies_ended(self, chat: Chat) -> None:
        super().replies_ended(chat)
        once = self._once_chat
        if once is None or self.load is not None or chat.streaming or (chat is once and "model" in once.once):
            return
        once.once.pop("model", None)
        if chat.model is self.chat.model:
            self._go_back()

    def _go_back(self) -> None:
        """The one reply is written: the model before goes on, loaded again where it had to make room."""
        self._once_chat = None
        if self.parked is None:
            from treechat.models import DEFAULT_MODEL

            self.switch_model(self._spec_before or DEFAULT_MODEL)
            return
        (model, spec), self.parked = self.parked, None
        before = self.chat.model
        self.take_over(model, spec)
        if before is not None:
            self._retire(before)

    # A branch that another model wrote

    def tell_other_model(self) -> None:
        """Which model the conversation is of, where another one is in use, and what going on with this one takes."""
        chat, model = self.chat, self.chat.model
        wanted, why = self.wanted_model()
        if model is not None and self._once_chat is chat:
            self.run_worker(self._tell_once(chat, model), group="costs")
        elif model is not None and wanted is not None and not self.is_in_use(wanted):
            self.run_worker(self._tell_cost(chat, model, wanted, why, chat.current_id), group="costs")

    async def _tell_once(self, chat: Chat, model: ChatModel) -> None:
        with suppress(TreechatError, EngineError):
            node_id, kv = chat.current_id, chat.kv
            cost = await asyncio.to_thread(kv.cost, node_id) if kv is not None and node_id is not None else None
            if chat is self.chat and chat.model is model:
                self.say(f"{model.name} is up for one reply" + (f"; it {_work(cost)}." if _work(cost) else "."))

    async def _tell_cost(self, chat: Chat, model: ChatModel, wanted: str, why: str, node_id: str | None) -> None:
        with suppress(TreechatError, EngineError):
            kv = chat.kv
            cost = await asyncio.to_thread(kv.cost, node_id) if kv is not None and node_id is not None else None
            if chat is not self.chat or chat.model is not model:
                return
            name = short_name(wanted)
            lines = [f"{name} is {why}" if why == SET else f"{name} {why}"]
            lines[0] += f"; {model.name} is in use."
            if work := _work(cost):
                lines.append(f"Going on with {model.name} {work}, once.")
            offered = self._load_named is not None and self.model_choices()[0].text == wanted
            lines.append(f"f4, enter goes over to {name}" if offered else "f4 takes another model")
            self.notify("\n".join(lines), timeout=10, markup=False)


def _work(cost: Cost | None) -> str:
    """What a cold branch takes; empty for a warm one."""
    if cost is None or cost.computed <= 1:
        return ""
    return f"computes {cost.computed:,} tokens" + (f", about {cost.seconds:.1f} s" if cost.seconds else "")
