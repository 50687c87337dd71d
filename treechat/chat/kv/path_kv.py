"""The KV of one conversation's paths in a model's engine: costs, protection and warming."""

from __future__ import annotations

from collections.abc import Iterable

from treechat.chat.chat_tree import ChatTree
from treechat.chat.engine_protocol import WarmHandle, engine_request
from treechat.chat.kv.costs import Cost, costs_of
from treechat.chat.kv.late_warm import LateWarm
from treechat.chat.kv.protection import Protection
from treechat.chat.model.chat_model import ChatModel
from treechat.chat.tokens.path_spans import SpanBook
from treechat.chat.tokens.span_jobs import AT_ONCE


class PathKV:
    """The KV of a conversation's paths for one model. A chat replaces it together with the model."""

    def __init__(self, model: ChatModel, spans: SpanBook, nodes: ChatTree, protection: Protection) -> None:
        """Keep references to the parts of a chat.

        model: the loaded model; its engine holds the KV.
        spans: spans for this model.
        nodes: the tree and the current node.
        protection: the nodes to protect; it outlives this model.
        """
        self._model = model
        self._spans = spans
        self._nodes = nodes
        self._protection = protection

    def cost(self, node_id: str) -> Cost | None:
        """Return what resuming at the node takes; None if the tree does not contain it."""
        return self.costs([node_id]).get(node_id)

    def costs(self, node_ids: Iterable[str]) -> dict[str, Cost]:
        """Return `cost` for several nodes and their ancestors, with few lookups. Changes nothing in the cache."""
        tree = self._nodes.tree
        return costs_of(self._model, self._spans, tree, (i for i in node_ids if i in tree))

    def protect(self, visible: Iterable[str] | None = None) -> None:
        """Ask the engine to evict these paths last: the current one, the user's marks, bookmarks and visible nodes.

        visible: ids of the visible nodes; None if they have not changed since the last call.
        """
        tree, current_id = self._nodes.tree, self._nodes.current_id
        if visible is not None:
            self._protection.look(tree, visible)
        self._model.engine.protect(self._protection.paths(tree, self._spans, current_id))

    def warm(self, node_id: str) -> WarmHandle | None:
        """Prefill the node's path ahead of need; None if the path has no tokens. Raises ModelError, GenerationError."""
        tree = self._nodes.tree
        path = tree.path(node_id)
        if self._spans.num_missing(path) > AT_ONCE:
            return LateWarm(self._model.engine, self._spans, tree, path)
        ids = self._spans.ids(tree, path)
        with engine_request():
            return self._model.engine.warm(ids) if ids else None
