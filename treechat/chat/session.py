"""One conversation in motion: going about its tree, and the replies that grow in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from treechat.chat.engine_protocol import Group, requesting
from treechat.chat.events import ChatEvent, NodeAdded, ReplyFinished
from treechat.chat.kv.path_kv import Computed
from treechat.chat.model.chat_model import ChatModel
from treechat.chat.reply import Reply
from treechat.chat.settings import META_KEY, Settings, own_values, sampling_record
from treechat.errors import UsageError
from treechat.store import Store
from treechat.tree import Node, Role, Span, Turn
from treechat_engine import SamplingParams

_CURRENT = "the current node"


class Chat(Computed):
    """A conversation for one window. Which node is current is this window's own.

    The sending methods are async generators of events: closing one stops its replies, and what came is kept. Errors
    that come before anything was generated are raised, later ones arrive in `ReplyFinished.error`.
    """

    def __init__(
        self,
        store: Store,
        conversation_id: str | None = None,
        settings: Settings | None = None,
        model: ChatModel | None = None,
    ) -> None:
        super().__init__(store, conversation_id)
        self.defaults = settings or Settings()
        self.own: dict[str, Any] = own_values(self.conversation.meta) if self.conversation else {}
        self.once: dict[str, Any] = {}
        self.model = model

    @classmethod
    def new(
        cls, store: Store, settings: Settings | None = None, model: ChatModel | None = None, title: str = ""
    ) -> Chat:
        """A conversation that is written down with its first node; `title` "" takes the first message's words."""
        chat = cls(store, None, settings, model)
        chat.title = title
        return chat

    @classmethod
    def open(
        cls, store: Store, conversation_id: str, settings: Settings | None = None, model: ChatModel | None = None
    ) -> Chat:
        """A conversation of the store, at the node that was current last."""
        return cls(store, conversation_id, settings, model)

    # Settings

    @property
    def settings(self) -> Settings:
        """For the next reply: what holds for it alone (`once`), else the conversation's `own`, else the defaults."""
        return self.defaults.with_values(self.own | self.once)

    def set_own(self, values: Mapping[str, Any]) -> None:
        """Settings of this conversation, kept with it; those not named are the defaults again."""
        self.own, self.once = dict(values), {}
        if self.conversation is not None:
            self.store.set_meta(self.conversation.id, META_KEY, self.own or None)

    def add(self, role: Role, text: str, parent_id: str | None) -> Node:
        is_first = self.conversation is None
        node = super().add(role, text, parent_id)
        if is_first and self.own:
            assert self.conversation is not None, "adding a node makes the conversation"
            self.store.set_meta(self.conversation.id, META_KEY, self.own)
        return node

    @property
    def system_prompt(self) -> str:
        """What the current path begins with; in an empty tree what it will begin with."""
        if not self.tree.nodes:
            return self.settings.system_prompt or ""
        path = self.path()
        return self.text(path[0].id) if path and path[0].role == "system" else ""

    def begin_with_system(self, prompt: str) -> None:
        """Go to a root with that system prompt, made where there is none; "" goes to where a new root would be."""
        roots = self.tree.children(None)
        same = [i for i in roots if self.tree[i].role == "system" and self.text(i) == prompt]
        if not prompt:
            self.current_id = None
        elif same:
            self.jump(same[-1])
        else:
            self.add("system", prompt, None)

    # Sending

    async def send(self, text: str, *, parent_id: str | None = _CURRENT, n: int = 1) -> AsyncGenerator[ChatEvent, None]:
        """Add a message below `parent_id` (None: as a root) and stream `n` replies; the first becomes current."""
        model = self.ready_model()
        if not text.strip() and not (model.is_text and text):
            raise UsageError("There is nothing to send", "Type a message first.")
        parent = self.current_id if parent_id is _CURRENT else parent_id
        if parent in self.replies:
            raise UsageError("This reply is still being written", "Stop it first (esc), or jump elsewhere.")
        if parent is None and not self.tree.nodes and self.settings.system_prompt and not model.is_text:
            system = self.add("system", self.settings.system_prompt, None)
            yield NodeAdded(system)
            parent = system.id
        user = self.add("user", text, parent)
        yield NodeAdded(user)
        async with aclosing(self._replies(user.id, n)) as events:
            async for event in events:
                yield event

    async def regenerate(self, node_id: str, n: int = 1) -> AsyncGenerator[ChatEvent, None]:
        """`n` more replies beside a reply, or below a user's message, in one batch; the first becomes current."""
        model = self.ready_model()
        node = self.tree[node_id]
        parent_id = node.parent_id if node.role == "assistant" else node_id
        if parent_id is None or (self.tree[parent_id].role != "user" and not model.is_text):
            raise UsageError("There is no message to reply to here", "Go to a message of yours, or to a reply to one.")
        async with aclosing(self._replies(parent_id, n)) as events:
            async for event in events:
                yield event

    async def edit(self, node_id: str, text: str) -> AsyncGenerator[ChatEvent, None]:
        """A sibling with other text. One's own message is replied to; a reply or system prompt just becomes current."""
        node = self.tree[node_id]
        if node.role == "user":
            async with aclosing(self.send(text, parent_id=node.parent_id)) as events:
                async for event in events:
                    yield event
            return
        sibling = self.add(node.role, text, node.parent_id)
        self.jump(sibling.id)
        yield NodeAdded(sibling)

    async def resume(self, node_id: str) -> AsyncGenerator[ChatEvent, None]:
        """Go on from a reply's last token: in place at a leaf, else in a sibling that begins with the same ids."""
        model = self.ready_model()
        assert self._spans is not None
        node = self.tree[node_id]
        if node.role != "assistant":
            raise UsageError("Only a reply can be continued", "Go to a reply that was stopped or cut off.")
        if node_id in self.replies:
            raise UsageError("This reply is still being written")
        path = self.tree.path(node_id)
        turn = self.store.turn(node_id)
        ended = node.status == "complete" and (turn is None or turn.finish_reason == "stop")
        if ended and not model.is_text:
            raise UsageError("This reply ended by itself", "Send a message, or regenerate it (r).")
        async with aclosing(self.make_spans(node_id)) as made:
            async for progress in made:
                yield progress
        span = self._spans.ensure(self.tree, path)[-1]
        text = self.text(node_id)
        is_leaf = not self.tree.children(node_id, hidden=True)
        ids = self._spans.ids(self.tree, path)
        async with aclosing(self._go_on(node.parent_id, ids, span, text, node_id if is_leaf else None)) as events:
            async for event in events:
                yield event

    async def begin_with(
        self, parent_id: str | None, span: Span, text: str, is_end: bool = False
    ) -> AsyncGenerator[ChatEvent, None]:
        """A reply below `parent_id` that begins with these ids, `text` being theirs, and goes on from there.

        is_end: the ids end it; nothing is generated.
        """
        model = self.ready_model()
        async with aclosing(self.make_spans(parent_id)) as made:
            async for progress in made:
                yield progress
        ids = [*self.path_ids(parent_id), *span.ids]
        if not is_end:
            async with aclosing(self._go_on(parent_id, ids, span, text)) as events:
                async for event in events:
                    yield event
            return
        turn = Turn(model.name, finish_reason="stop", prompt_tokens=len(ids), computed_tokens=0, completion_tokens=0)
        node = self.start_reply(parent_id, turn)
        self.store.finish_reply(node.id, "complete", text, span, turn)
        self.tree.update(node := self.store.node(node.id))
        self.jump(node.id)
        yield NodeAdded(node)
        yield ReplyFinished(node, turn)

    async def _go_on(
        self, parent_id: str | None, ids: Sequence[int], span: Span, text: str, node_id: str | None = None
    ) -> AsyncGenerator[ChatEvent, None]:
        """Generate behind `ids`, which end with `span`: in the reply `node_id`, or else in a new one."""
        model = self.ready_model()
        params = self.settings.params(model)
        turn = Turn(model.name, sampling_record(params), params.seed)
        group = self._request(model, ids, [params])
        self.once = {}
        if node_id is None:
            node = self.start_reply(parent_id, turn)
            self.store.flush_reply(node.id, text, span)
        else:
            self.store.reopen_reply(node_id)
            node = self.tree.change(node_id, status="streaming")
        self.jump(node.id)
        reply = self._reply(model, node, turn, span, text, group, 0)
        async with aclosing(self._follow([reply], [] if node_id else [node])) as events:
            async for event in events:
                yield event

    def stop(self, node_id: str | None = None) -> bool:
        """Stop one reply, or all and what they wait for; what came is kept. Whether there was any."""
        chosen = [reply for key, reply in self.replies.items() if node_id in (None, key)]
        for reply in chosen:
            reply.stop()
        making = list(self._making) if node_id is None else []
        for stopped in making:
            stopped.set()
        return bool(chosen or making)

    async def _replies(self, parent_id: str, n: int) -> AsyncGenerator[ChatEvent, None]:
        model = self.ready_model()
        assert self._spans is not None
        async with aclosing(self.make_spans(parent_id)) as made:
            async for progress in made:
                yield progress
        ids = self._spans.ids(self.tree, self.tree.path(parent_id))
        is_first = n == 1 and not self.tree.children(parent_id)
        params = [self.settings.params(model, sibling, is_first) for sibling in range(n)]
        group = self._request(model, ids, params)
        self.once = {}
        replies = []
        for index, one in enumerate(params):
            turn = Turn(model.name, sampling_record(one), one.seed)
            node = self.start_reply(parent_id, turn)
            replies.append(self._reply(model, node, turn, Span(model.fingerprint, ()), "", group, index))
        self.jump(replies[0].node.id)
        async with aclosing(self._follow(replies, [reply.node for reply in replies])) as events:
            async for event in events:
                yield event

    @staticmethod
    def _request(model: ChatModel, ids: Sequence[int], params: Sequence[SamplingParams]) -> Group:
        with requesting():
            return model.engine.fan_out(ids, params, "interactive" if len(params) == 1 else "fan-out")

    def _reply(
        self, model: ChatModel, node: Node, turn: Turn, span: Span, text: str, group: Group, index: int
    ) -> Reply:
        stream, cancel = group.streams[index], partial(group.cancel, index)
        reply = Reply(self.store, node, turn, span, text, stream, cancel, model.template.decode)
        self.replies[node.id] = reply
        return reply

    async def _follow(self, replies: Sequence[Reply], added: Sequence[Node]) -> AsyncGenerator[ChatEvent, None]:
        """The events of replies as they come, until all have ended; if the reader leaves, they are stopped and kept.

        added: those of their nodes that are new.
        """
        events: asyncio.Queue[ChatEvent] = asyncio.Queue()
        for reply in replies:
            reply.start(events.put_nowait)
        num_open = len(replies)
        try:
            for node in added:
                yield NodeAdded(node)
            while num_open:
                event = await events.get()
                if isinstance(event, ReplyFinished):
                    num_open -= 1
                    self._ended(event)
                yield event
        finally:
            for reply in replies:
                if reply.node.id in self.replies:
                    reply.stop()
                    await reply.wait()
                    self._ended(ReplyFinished(reply.node, reply.turn))

    def _ended(self, event: ReplyFinished) -> None:
        self.replies.pop(event.node.id, None)
        self.tree.update(event.node)
        self.remember(event.node.id)
        if self._spans is not None:
            self._spans.forget(event.node.id)
