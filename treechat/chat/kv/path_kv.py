"""What a model adds to a conversation's tree: the tokens of its paths, and where their KV is."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from contextlib import aclosing

from treechat.chat.chat_tree import Structure
from treechat.chat.engine_protocol import WarmHandle, requesting
from treechat.chat.events import Cost, SpansMade
from treechat.chat.kv.costs import costs_of
from treechat.chat.kv.protection import Protection
from treechat.chat.model.chat_model import ChatModel
from treechat.chat.tokens.path_spans import SpanBook
from treechat.chat.tokens.span_jobs import AT_ONCE, LateWarm, make_spans
from treechat.errors import ModelError
from treechat.store import Store
from treechat.tree import Span


class Computed(Structure):
    """A tree with a model, or without one until it is loaded."""

    def __init__(self, store: Store, conversation_id: str | None) -> None:
        super().__init__(store, conversation_id)
        self._model: ChatModel | None = None
        self._spans: SpanBook | None = None
        self._protection = Protection()
        self._making: set[threading.Event] = set()

    @property
    def model(self) -> ChatModel | None:
        """None until it is loaded; the tree can be read meanwhile."""
        return self._model

    @model.setter
    def model(self, model: ChatModel | None) -> None:
        self._model = model
        self._spans = SpanBook(self.store, model) if model else None

    @property
    def is_text_tree(self) -> bool:
        """The model has no chat template: text goes on from text."""
        return self._model is not None and self._model.is_text

    def opens_with_thoughts(self, node_id: str) -> bool:
        if self._model is None or not self._model.template.opens_with_thoughts:
            return False
        turn = self.turn(node_id)
        return turn is not None and turn.model == self._model.name

    def cost(self, node_id: str) -> Cost | None:
        """What resuming at the node takes; None while no model is loaded."""
        return self.costs([node_id]).get(node_id)

    def costs(self, node_ids: Iterable[str]) -> dict[str, Cost]:
        """`cost` of several nodes, and of their ancestors, from few lookups. Changes nothing in the cache."""
        if self._model is None or self._spans is None:
            return {}
        return costs_of(self._model, self._spans, self.tree, (i for i in node_ids if i in self.tree))

    def protect(self, on_screen: Iterable[str] | None = None) -> None:
        """Tell the engine whose KV should go last: the current path's, that of bookmarks and of the nodes in sight.

        on_screen: None where the same nodes are in sight as the last time. Jumps and bookmarks tell it by themselves.
        """
        if on_screen is not None:
            self._protection.look(self.tree, on_screen)
        if self._model is not None and self._spans is not None:
            self._model.engine.protect(self._protection.paths(self.tree, self._spans, self.current_id))

    @property
    def protected(self) -> Collection[str]:
        """Ids of the nodes that `set_protected` named."""
        return self._protection.chosen.keys()

    def set_protected(self, node_id: str, protected: bool) -> None:
        """Have the engine keep the path to the node longer than others, in this window and while it lasts."""
        if protected:
            self._protection.chosen[node_id] = None
        else:
            self._protection.chosen.pop(node_id, None)
        self.protect()

    def jump(self, node_id: str) -> None:
        super().jump(node_id)
        self.protect()

    def set_bookmark(self, node_id: str, bookmarked: bool) -> None:
        super().set_bookmark(node_id, bookmarked)
        self._protection.look(self.tree)
        self.protect()

    def warm(self, node_id: str) -> WarmHandle | None:
        """Prefill the node's path ahead of need; None while no model is loaded. Raises ModelError, GenerationError."""
        if self._model is None or self._spans is None:
            return None
        path = self.tree.path(node_id)
        if self._spans.num_missing(path) > AT_ONCE:
            return LateWarm(self._model.engine, self._spans, self.tree, path)
        ids = self._spans.ids(self.tree, path)
        with requesting():
            return self._model.engine.warm(ids) if ids else None

    async def make_spans(self, node_id: str | None) -> AsyncGenerator[SpansMade, None]:
        """Make the spans that the path to the node lacks for this model. Raises ModelError, GenerationError."""
        self.ready_model()
        assert self._spans is not None
        stopped = threading.Event()
        self._making.add(stopped)
        try:
            made = make_spans(self._spans, self.tree, self.tree.path(node_id), stopped)
            async with aclosing(made) as events:
                async for event in events:
                    yield event
        finally:
            self._making.discard(stopped)

    def span(self, node_id: str) -> Span:
        """The node's token ids for this model, made from its text as needed. Raises ModelError without a model."""
        self.ready_model()
        assert self._spans is not None
        return self._spans.ensure(self.tree, self.tree.path(node_id))[-1]

    def path_ids(self, node_id: str | None) -> Sequence[int]:
        """Token ids from the root to the node's end; none for None. Raises ModelError without a model."""
        self.ready_model()
        assert self._spans is not None
        return self._spans.ids(self.tree, self.tree.path(node_id))

    def ready_model(self) -> ChatModel:
        """The model. Raises ModelError while none is loaded."""
        if self._model is None:
            raise ModelError("No model is loaded yet", "Your text is kept: send it again when the model is ready.")
        return self._model
