"""The spans of a path for one model: read from the store, made from the text where this model has none yet."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import takewhile

from treechat.chat.model import ChatModel
from treechat.chat.template import Message
from treechat.store import Store
from treechat.tree import Span, Tree

_CHARACTERS_PER_TOKEN = 4
"""To estimate the tokens of a text that was not tokenized yet; English prose has 4 to 4.5."""


class SpanBook:
    """Spans by node for one model, over one store. Spans never change except while their reply grows."""

    def __init__(self, store: Store, model: ChatModel) -> None:
        self._store = store
        self._model = model
        self._spans: dict[str, Span] = {}
        self._arrays: dict[str, array[int]] = {}

    def forget(self, node_id: str) -> None:
        """The span grew in the store: read it again when it is needed."""
        self._spans.pop(node_id, None)
        self._arrays.pop(node_id, None)

    def known(self, path: Iterable[str]) -> dict[str, Span]:
        """The spans that exist, by node id."""
        path = list(path)
        missing = [node_id for node_id in path if node_id not in self._spans]
        if missing:
            self._spans.update(self._store.spans(missing, self._model.fingerprint))
        return {node_id: self._spans[node_id] for node_id in path if node_id in self._spans}

    def ensure(self, tree: Tree, path: list[str]) -> list[Span]:
        """The spans of a path from its root, root first; those missing are made from the text and stored."""
        known = self.known(path)
        missing = [node_id for node_id in path if node_id not in known]
        if missing:
            texts = self._store.texts(self._needed_texts(tree, path, missing))
            messages = [Message(tree[node_id].role, texts.get(node_id, "")) for node_id in path]
            for index, node_id in enumerate(path):
                if node_id not in known:
                    parent_ids = known[path[index - 1]].ids if index else ()
                    ids = self._model.template.span_ids(messages[:index], messages[index], parent_ids)
                    known[node_id] = span = Span(self._model.fingerprint, tuple(ids))
                    self._store.put_span(node_id, span)
                    self._spans[node_id] = span
        return [known[node_id] for node_id in path]

    @staticmethod
    def _needed_texts(tree: Tree, path: list[str], missing: list[str]) -> list[str]:
        """The missing nodes, and the system prompts that a first turn is rendered with."""
        return list({*missing, *(node_id for node_id in path if tree[node_id].role == "system")})

    def ids(self, tree: Tree, path: list[str]) -> array[int]:
        """Token ids of a path, its spans made as needed. In an array: an engine reads it without a conversion."""
        self.ensure(tree, path)
        return self._joined(path)

    def known_ids(self, path: list[str]) -> array[int]:
        """Token ids of the path's leading nodes whose spans exist."""
        arrays = self.known_arrays(path)
        return self._joined(list(takewhile(arrays.__contains__, path)))

    def known_arrays(self, node_ids: Iterable[str]) -> dict[str, array[int]]:
        """The token ids of the spans that exist, by node id."""
        known = self.known(node_ids)
        for node_id, span in known.items():
            if node_id not in self._arrays:
                self._arrays[node_id] = array("q", span.ids)
        return {node_id: self._arrays[node_id] for node_id in known}

    def estimated_lens(self, node_ids: list[str]) -> dict[str, int]:
        """About how many tokens the texts of nodes without a span have."""
        texts = self._store.texts(node_ids) if node_ids else {}
        return {node_id: len(texts.get(node_id, "")) // _CHARACTERS_PER_TOKEN + 1 for node_id in node_ids}

    def _joined(self, path: list[str]) -> array[int]:
        arrays = self.known_arrays(path)
        ids = array("q")
        for node_id in path:
            ids.extend(arrays[node_id])
        return ids
