"""The spans of a path for one model: read from the store, made from the text where this model has none yet."""

from __future__ import annotations

from collections.abc import Iterable

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

    def forget(self, node_id: str) -> None:
        """The span grew in the store: read it again when it is needed."""
        self._spans.pop(node_id, None)

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

    def ids(self, tree: Tree, path: list[str]) -> list[int]:
        """Token ids of a path, its spans made as needed."""
        return [token_id for span in self.ensure(tree, path) for token_id in span.ids]

    def known_ids(self, path: list[str]) -> tuple[list[int], list[int]]:
        """Token ids of the path's leading nodes whose spans exist, and for each node of the path the tokens up to its
        end, those without a span estimated from the length of their text."""
        known = self.known(path)
        ids: list[int] = []
        ends: list[int] = []
        whole = True
        missing = [node_id for node_id in path if node_id not in known]
        texts = self._store.texts(missing) if missing else {}
        end = 0
        for node_id in path:
            if node_id in known:
                end += len(known[node_id].ids)
                if whole:
                    ids.extend(known[node_id].ids)
            else:
                whole = False
                end += len(texts.get(node_id, "")) // _CHARACTERS_PER_TOKEN + 1
            ends.append(end)
        return ids, ends
