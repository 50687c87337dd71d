"""One open conversation: its tree, current node, model and streaming replies."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from treechat.chat.chat_tree import ChatTree
from treechat.chat.engine_protocol import engine_request
from treechat.chat.event_queue import EventQueue
from treechat.chat.events import ChatEvent, NodeAdded, ReplyFinished
from treechat.chat.kv.path_kv import PathKV
from treechat.chat.kv.protection import Protection
from treechat.chat.model.chat_model import ChatModel
from treechat.chat.reply import Reply
from treechat.chat.settings import META_KEY, Settings, own_values, sampling_record
from treechat.chat.tokens.path_spans import SpanBook
from treechat.chat.tokens.span_jobs import make_spans
from treechat.errors import ModelError, UsageError
from treechat.store import Event, Store
from treechat.tree import Node, Role, Span, Tree, Turn
from treechat_engine import SamplingParams

_CURRENT = "the current node"


class Chat:
    """One conversation in one window. Each window has its own current node.

    Its parts are `nodes` (the tree, the current node and texts), the spans of paths for the model, and `kv`.

    The sending methods return async generators of events. Closing a generator stops its replies and keeps their text.
    An error before the first token is raised; a later error is in `ReplyFinished.error`.
    """

    def __init__(
        self,
        store: Store,
        conversation_id: str | None = None,
        settings: Settings | None = None,
        model: ChatModel | None = None,
    ) -> None:
        """Open a conversation, or begin a new one.

        store: the open database.
        conversation_id: None begins a conversation that is stored together with its first node.
        settings: the defaults of the window; None takes those of `Settings`.
        model: None if it is not loaded yet.
        """
        self.store = store
        self.nodes = ChatTree(store, conversation_id)
        self.defaults = settings or Settings()
        conversation = self.nodes.conversation
        self.own: dict[str, Any] = own_values(conversation.meta) if conversation else {}
        self.next_reply_values: dict[str, Any] = {}
        self.kv: PathKV | None = None
        """Costs, protection and warming in the loaded model's engine; None while no model is loaded."""
        self._model: ChatModel | None = None
        self._spans: SpanBook | None = None
        self._protection = Protection()
        self._span_stops: set[threading.Event] = set()
        self.model = model

    @classmethod
    def new(
        cls, store: Store, settings: Settings | None = None, model: ChatModel | None = None, title: str = ""
    ) -> Chat:
        """Begin a conversation. It is stored with its first node; `title` "" takes the first words of that node."""
        chat = cls(store, None, settings, model)
        chat.title = title
        return chat

    @classmethod
    def open(
        cls, store: Store, conversation_id: str, settings: Settings | None = None, model: ChatModel | None = None
    ) -> Chat:
        """Open a stored conversation at its last current node."""
        return cls(store, conversation_id, settings, model)

    # Settings

    @property
    def settings(self) -> Settings:
        """The settings of the next reply: `next_reply_values`, else the conversation's `own`, else `defaults`."""
        return self.defaults.with_values(self.own | self.next_reply_values)

    def set_own(self, values: Mapping[str, Any]) -> None:
        """Store the settings of this conversation; those not in `values` return to the defaults."""
        self.own, self.next_reply_values = dict(values), {}
        if self.conversation_id is not None:
            self.store.set_meta(self.conversation_id, META_KEY, self.own or None)

    @property
    def system_prompt(self) -> str:
        """The system prompt of the current path; in an empty tree, that of the settings."""
        if not self.tree.nodes:
            return self.settings.system_prompt or ""
        path = self.path()
        return self.text(path[0].id) if path and path[0].role == "system" else ""

    def begin_with_system(self, prompt: str) -> None:
        """Make a root with this system prompt current, and add it if there is none; "" makes no node current."""
        roots = self.tree.children(None)
        same = [i for i in roots if self.tree[i].role == "system" and self.text(i) == prompt]
        if not prompt:
            self.nodes.current_id = None
        elif same:
            self.jump(same[-1])
        else:
            self.add("system", prompt, None)

    # The tree

    @property
    def tree(self) -> Tree:
        return self.nodes.tree

    @property
    def current_id(self) -> str | None:
        """Id of the current node; None in an empty tree, and for a new root."""
        return self.nodes.current_id

    @property
    def conversation_id(self) -> str | None:
        """None until the first node is written."""
        return self.nodes.conversation_id

    @property
    def title(self) -> str:
        return self.nodes.title

    @title.setter
    def title(self, title: str) -> None:
        self.nodes.title = title

    @property
    def replies(self) -> dict[str, Reply]:
        """The replies that are generated in this window, by node id."""
        return self.nodes.replies

    @property
    def streaming(self) -> set[str]:
        """Ids of the nodes that are generated in this window."""
        return set(self.nodes.replies)

    def path(self) -> list[Node]:
        """Return the nodes from the root to the current one."""
        return self.nodes.path()

    def text(self, node_id: str) -> str:
        """Return the text of a node; of a growing reply, its text so far."""
        return self.nodes.text(node_id)

    def turn(self, node_id: str) -> Turn | None:
        """Return the provenance of a reply; None if the node was not generated."""
        return self.nodes.turn(node_id)

    def opens_with_thoughts(self, node_id: str) -> bool:
        """Whether the prompt of a reply ended with the tag that opens thoughts; False if the model is not loaded."""
        if self._model is None or not self._model.template.opens_with_thoughts:
            return False
        turn = self.turn(node_id)
        return turn is not None and turn.model == self._model.name

    def jump(self, node_id: str) -> None:
        """Make a node current, in this window and when the conversation is opened again."""
        self.nodes.jump(node_id)
        self._protect()

    def add(self, role: Role, text: str, parent_id: str | None) -> Node:
        """Write a finished node below `parent_id`; it becomes current."""
        is_first = self.nodes.conversation is None
        node = self.nodes.add(role, text, parent_id)
        self._protect()
        if is_first and self.own:
            assert self.conversation_id is not None, "adding a node makes the conversation"
            self.store.set_meta(self.conversation_id, META_KEY, self.own)
        return node

    def set_bookmark(self, node_id: str, bookmarked: bool) -> None:
        """Set or remove a node's bookmark; the KV of bookmarked paths is protected."""
        self.nodes.set_bookmark(node_id, bookmarked)
        self._protection.look(self.tree)
        self._protect()

    def undo(self) -> Event | None:
        """Undo the last change of structure; None if there is none."""
        event = self.nodes.undo()
        self._protect()
        return event

    def redo(self) -> Event | None:
        """Repeat the change that was undone last; None if there is none."""
        event = self.nodes.redo()
        self._protect()
        return event

    # The model

    @property
    def model(self) -> ChatModel | None:
        """None until a model is loaded; the tree can be read without one."""
        return self._model

    @model.setter
    def model(self, model: ChatModel | None) -> None:
        self._model, self._spans, self.kv = model, None, None
        if model is not None:
            self._spans = SpanBook(self.store, model.template)
            self.kv = PathKV(model, self._spans, self.nodes, self._protection)

    def ready_model(self) -> ChatModel:
        """Return the model. Raises ModelError while none is loaded."""
        if self._model is None:
            raise ModelError("No model is loaded yet", "Your text is kept; send it again when a model is loaded.")
        return self._model

    @property
    def is_text_tree(self) -> bool:
        """Whether the model has no chat template: text continues text."""
        return self._model is not None and self._model.is_text

    @property
    def protected(self) -> Collection[str]:
        """Ids of the nodes that `set_protected` named."""
        return self._protection.chosen.keys()

    def set_protected(self, node_id: str, protected: bool) -> None:
        """Protect the KV of the path to a node, or end its protection. Holds for this window until it closes."""
        if protected:
            self._protection.chosen[node_id] = None
        else:
            self._protection.chosen.pop(node_id, None)
        self._protect()

    def _protect(self) -> None:
        if self.kv is not None:
            self.kv.protect()

    def span(self, node_id: str) -> Span:
        """Return the node's token ids for this model, made from its text if needed. Raises ModelError."""
        return self._ready_spans().ensure(self.tree, self.tree.path(node_id))[-1]

    def path_ids(self, node_id: str | None) -> Sequence[int]:
        """Return the token ids from the root to the node's end; empty for None. Raises ModelError."""
        return self._ready_spans().ids(self.tree, self.tree.path(node_id))

    def _ready_spans(self) -> SpanBook:
        self.ready_model()
        assert self._spans is not None, "a model without a book of spans"
        return self._spans

    async def _make_spans(self, events: EventQueue, node_id: str | None) -> None:
        """Make the spans that the path to the node lacks for this model. Raises ModelError, GenerationError."""
        stopped = threading.Event()
        self._span_stops.add(stopped)
        try:
            await make_spans(self._ready_spans(), self.tree, self.tree.path(node_id), stopped, events)
            await events.all_read()
        finally:
            self._span_stops.discard(stopped)

    # Sending: each method that returns a generator has a coroutine that puts the same events into a queue

    def stream(self, work: Callable[[EventQueue], Awaitable[object]]) -> AsyncGenerator[ChatEvent, None]:
        """Run an operation of this chat and yield its events; see `EventQueue.stream`."""
        return EventQueue().stream(work, self._finish_reply)

    def send(self, text: str, *, parent_id: str | None = _CURRENT, n: int = 1) -> AsyncGenerator[ChatEvent, None]:
        """Add a message below `parent_id` (None: as a root) and stream `n` replies; the first becomes current."""
        return self.stream(lambda events: self.send_into(events, text, parent_id=parent_id, n=n))

    async def send_into(
        self, events: EventQueue, text: str, *, parent_id: str | None = _CURRENT, n: int = 1
    ) -> list[Node]:
        """Do as `send`; returns the replies' nodes after their end."""
        model = self.ready_model()
        if not text.strip() and not (model.is_text and text):
            raise UsageError("There is nothing to send", "Type a message first.")
        parent = self.current_id if parent_id is _CURRENT else parent_id
        if parent in self.replies:
            raise UsageError("This reply is still being written", "Stop it first (esc), or go to another message.")
        if parent is None and not self.tree.nodes and self.settings.system_prompt and not model.is_text:
            system = self.add("system", self.settings.system_prompt, None)
            await events.hand_over(NodeAdded(system))
            parent = system.id
        user = self.add("user", text, parent)
        await events.hand_over(NodeAdded(user))
        return await self._reply_to(events, user.id, n)

    def regenerate(self, node_id: str, n: int = 1) -> AsyncGenerator[ChatEvent, None]:
        """Generate `n` siblings of a reply, or `n` replies to a user's message; the first becomes current."""
        return self.stream(lambda events: self._regenerate(events, node_id, n))

    async def _regenerate(self, events: EventQueue, node_id: str, n: int) -> None:
        model = self.ready_model()
        node = self.tree[node_id]
        parent_id = node.parent_id if node.role == "assistant" else node_id
        if parent_id is None or (self.tree[parent_id].role != "user" and not model.is_text):
            raise UsageError("There is no message to reply to here", "Select one of your messages, or a reply to it.")
        await self._reply_to(events, parent_id, n)

    def edit(self, node_id: str, text: str) -> AsyncGenerator[ChatEvent, None]:
        """Add a sibling with another text. A user's message gets a reply; any other becomes current without one."""
        return self.stream(lambda events: self._edit(events, node_id, text))

    async def _edit(self, events: EventQueue, node_id: str, text: str) -> None:
        node = self.tree[node_id]
        if node.role == "user":
            await self.send_into(events, text, parent_id=node.parent_id)
            return
        sibling = self.add(node.role, text, node.parent_id)
        self.jump(sibling.id)
        events.put(NodeAdded(sibling))

    def resume(self, node_id: str) -> AsyncGenerator[ChatEvent, None]:
        """Continue a reply after its last token: a leaf in place, another node in a sibling with the same first ids."""
        return self.stream(lambda events: self._resume(events, node_id))

    async def _resume(self, events: EventQueue, node_id: str) -> None:
        model = self.ready_model()
        node = self.tree[node_id]
        if node.role != "assistant":
            raise UsageError("Only a reply can be continued", "Go to a reply that was stopped or cut off.")
        if node_id in self.replies:
            raise UsageError("This reply is still being written")
        turn = self.store.turn(node_id)
        ended = node.status == "complete" and (turn is None or turn.finish_reason == "stop")
        if ended and not model.is_text:
            raise UsageError("This reply is complete", "Send a message, or regenerate it (r).")
        await self._make_spans(events, node_id)
        span, ids = self.span(node_id), self.path_ids(node_id)
        is_leaf = not self.tree.children(node_id, hidden=True)
        params, text = [self.settings.params(model)], self.text(node_id)
        await self._generate(events, node.parent_id, ids, params, span, text, node_id if is_leaf else None)

    async def begin_into(
        self, events: EventQueue, parent_id: str | None, span: Span, text: str, is_end: bool = False
    ) -> None:
        """Add a reply that begins with given ids, and continue it.

        events: the queue of the operation.
        parent_id: the node below which the reply is.
        span: the first ids of the reply.
        text: the text of these ids.
        is_end: the ids end the reply; nothing is generated.
        """
        model = self.ready_model()
        await self._make_spans(events, parent_id)
        ids = [*self.path_ids(parent_id), *span.ids]
        if not is_end:
            await self._generate(events, parent_id, ids, [self.settings.params(model)], span, text)
            return
        turn = Turn(model.name, finish_reason="stop", prompt_tokens=len(ids), computed_tokens=0, completion_tokens=0)
        node = self.nodes.start_reply(parent_id, turn)
        self.store.finish_reply(node.id, "complete", text, span, turn)
        self.tree.update(node := self.store.node(node.id))
        self.jump(node.id)
        events.put(NodeAdded(node))
        events.put(ReplyFinished(node, turn))

    def stop(self, node_id: str | None = None) -> bool:
        """Stop one reply, or all replies and the making of spans; texts are kept. Return whether there was any."""
        chosen = [reply for key, reply in self.replies.items() if node_id in (None, key)]
        for reply in chosen:
            reply.stop()
        stops = list(self._span_stops) if node_id is None else []
        for stopped in stops:
            stopped.set()
        return bool(chosen or stops)

    async def _reply_to(self, events: EventQueue, parent_id: str, n: int) -> list[Node]:
        """Generate `n` replies below a message; returns their nodes after their end."""
        model = self.ready_model()
        await self._make_spans(events, parent_id)
        ids = self.path_ids(parent_id)
        is_first = n == 1 and not self.tree.children(parent_id)
        params = [self.settings.params(model, sibling, is_first) for sibling in range(n)]
        return await self._generate(events, parent_id, ids, params, Span(model.fingerprint, ()), "")

    async def _generate(
        self,
        events: EventQueue,
        parent_id: str | None,
        ids: Sequence[int],
        params: Sequence[SamplingParams],
        span: Span,
        text: str,
        node_id: str | None = None,
    ) -> list[Node]:
        """Generate one reply for each of `params`; returns the replies' nodes after their end.

        events: the queue of the operation.
        parent_id: the node below which the replies are.
        ids: the prompt; it ends with the ids of `span`.
        params: sampling parameters.
        span: the leading ids of each reply; may be empty.
        text: the text of these ids.
        node_id: the reply that is continued in place; None makes new nodes.
        """
        model = self.ready_model()
        with engine_request():
            group = model.engine.fan_out(ids, params, "interactive" if len(params) == 1 else "fan-out")
        self.next_reply_values = {}
        replies = []
        for index, one in enumerate(params):
            turn = Turn(model.name, sampling_record(one), one.seed)
            if node_id is None:
                node = self.nodes.start_reply(parent_id, turn)
                if span.ids:
                    self.store.flush_reply(node.id, text, span)
            else:
                self.store.reopen_reply(node_id)
                node = self.tree.change(node_id, status="streaming")
            stream, cancel = group.streams[index], partial(group.cancel, index)
            self.replies[node.id] = reply = Reply(
                self.store, node, turn, span, text, stream, cancel, model.template.decode
            )
            replies.append(reply)
        self.jump(replies[0].node.id)
        for reply in replies if node_id is None else ():
            events.put(NodeAdded(reply.node))
        await self._follow(events, replies)
        return [reply.node for reply in replies]

    async def _follow(self, events: EventQueue, replies: Sequence[Reply]) -> None:
        """Pass on the events of replies until all have ended; if it is cancelled, stop and store them."""
        try:
            for reply in replies:
                reply.start(events.put)
            for reply in replies:
                await reply.wait()
            await events.all_read()
        finally:
            for reply in replies:
                if reply.node.id in self.replies:
                    reply.stop()
                    await reply.wait()
                    self._finish_reply(ReplyFinished(reply.node, reply.turn))

    def _finish_reply(self, event: ReplyFinished) -> None:
        self.replies.pop(event.node.id, None)
        self.tree.update(event.node)
        self.nodes.forget(event.node.id)
        if self._spans is not None:
            self._spans.forget(event.node.id)
