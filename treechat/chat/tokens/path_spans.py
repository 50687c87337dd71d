"""The spans of a path for one model: read from the store, or made from the text if the store has none."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Iterable
from itertools import takewhile

from treechat.chat.tokens.template import Message, Template
from treechat.store import Store
from treechat.tree import Span, Tree

CHUNK = 200
"""Number of spans that are made and stored together."""

_BYTES_PER_TOKEN = 4
"""Estimates the tokens of a text that is not tokenized yet; English prose has 4 to 4.5."""

_TEMPLATE_TOKENS = 6
"""About the number of tokens that a template adds to a message."""


class SpanBook:
    """Cache the spans of nodes for one model and one store. A span changes only while its reply grows."""

    def __init__(self, store: Store, template: Template) -> None:
        self._store = store
        self._template = template
        self._spans: dict[str, Span] = {}
        self._arrays: dict[str, array[int]] = {}
        self._estimates: dict[str, int] = {}
        self._absent: set[str] = set()
        self._absent_version = -1

    def forget(self, node_id: str) -> None:
        """Drop the cached span of a node, since the store has a newer one."""
        self._spans.pop(node_id, None)
        self._arrays.pop(node_id, None)
        self._estimates.pop(node_id, None)
        self._absent.discard(node_id)

    def known(self, path: Iterable[str]) -> dict[str, Span]:
        """Return the spans that exist, by node id."""
        path = list(path)
        missing = [node_id for node_id in path if node_id not in self._spans]
        if missing:
            self._spans.update(self._store.spans(missing, self._template.fingerprint))
        return {node_id: self._spans[node_id] for node_id in path if node_id in self._spans}

    def num_missing(self, path: list[str]) -> int:
        """Return the number of nodes without a span."""
        return len(path) - len(self.known(path))

    def ensure(
        self,
        tree: Tree,
        path: list[str],
        progress: Callable[[int], object] | None = None,
        stopped: threading.Event | None = None,
    ) -> list[Span]:
        """Return the spans of a path, root first. Missing spans are made from the texts and stored.

        tree: the tree of the path.
        path: node ids from a root.
        progress: called with the number of spans made so far.
        stopped: if it is set meanwhile, no more spans are made, and only the leading spans are returned.
        """
        known = self.known(path)
        missing = [index for index, node_id in enumerate(path) if node_id not in known]
        for start in range(0, len(missing), CHUNK):
            if stopped is not None and stopped.is_set():
                break
            chunk = missing[start : start + CHUNK]
            # Another thread may make the spans of the same path: use those that it has finished.
            known.update(self._made(path[index] for index in chunk))
            made = self._make(tree, path, [index for index in chunk if path[index] not in known], known)
            self._store.put_spans(made)
            self._spans.update(made)
            if progress is not None:
                progress(start + len(chunk))
        return [known[node_id] for node_id in takewhile(known.__contains__, path)]

    def _made(self, node_ids: Iterable[str]) -> dict[str, Span]:
        """Return the spans that are in memory."""
        return {node_id: span for node_id in node_ids if (span := self._spans.get(node_id)) is not None}

    def _make(self, tree: Tree, path: list[str], indexes: list[int], known: dict[str, Span]) -> list[tuple[str, Span]]:
        """Make the spans at these indexes of the path and add them to `known`, which has all spans above them."""
        num_systems = sum(1 for _ in takewhile(lambda node_id: tree[node_id].role == "system", path))
        node_ids = [path[index] for index in indexes]
        # The system prompts are needed too: a first turn is rendered with them.
        texts = self._store.texts([*path[:num_systems], *node_ids])
        open_ids = self._open_replies(tree, node_ids)
        systems = [Message("system", texts[node_id]) for node_id in path[:num_systems]]
        made = []
        for index, node_id in zip(indexes, node_ids, strict=True):
            ancestors, parent_ids = systems[:index], known[path[index - 1]].ids if index else ()
            if index > num_systems:
                # A template reads only the role of the last message above, so its text stays empty.
                ancestors = [*systems, Message(tree[path[index - 1]].role, "")]
            ids = self._template.span_ids(ancestors, Message(tree[node_id].role, texts[node_id]), parent_ids)
            if node_id in open_ids and ids and ids[-1] in self._template.stop_ids:
                ids.pop()
            known[node_id] = span = Span(self._template.fingerprint, tuple(ids))
            made.append((node_id, span))
        return made

    def _open_replies(self, tree: Tree, node_ids: Iterable[str]) -> set[str]:
        """Return the replies that were stopped or cut off. Their spans have no end token, so they can be continued."""
        replies = [node_id for node_id in node_ids if tree[node_id].role == "assistant"]
        turns = self._store.turns(replies)
        return {
            node_id
            for node_id in replies
            if tree[node_id].status != "complete" or (node_id in turns and turns[node_id].finish_reason == "length")
        }

    def ids(self, tree: Tree, path: list[str]) -> array[int]:
        """Return the token ids of a path; missing spans are made. An engine reads an array without a conversion."""
        self.ensure(tree, path)
        return self._joined(path)

    def known_ids(self, path: list[str]) -> array[int]:
        """Return the token ids of the path's leading nodes that have spans."""
        arrays = self.known_arrays(path)
        return self._joined(list(takewhile(arrays.__contains__, path)))

    def known_arrays(self, node_ids: Iterable[str]) -> dict[str, array[int]]:
        """Return the token ids of the spans that exist, by node id.

        A missing span is looked up again only after another window has written, since costs are looked up often.
        """
        version = self._store.data_version()
        if version != self._absent_version:
            self._absent, self._absent_version = set(), version
        ids = [i for i in node_ids if i in self._spans or i not in self._absent]
        known = self.known(ids)
        self._absent.update(i for i in ids if i not in known)
        for node_id, span in known.items():
            if node_id not in self._arrays:
                self._arrays[node_id] = array("q", span.ids)
        return {node_id: self._arrays[node_id] for node_id in known}

    def estimated_lens(self, node_ids: list[str]) -> dict[str, int]:
        """Return the estimated number of tokens of nodes without a span."""
        missing = [node_id for node_id in node_ids if node_id not in self._estimates]
        lens = self._store.text_lens(missing) if missing else {}
        for node_id in missing:
            self._estimates[node_id] = lens.get(node_id, 0) // _BYTES_PER_TOKEN + _TEMPLATE_TOKENS
        return {node_id: self._estimates[node_id] for node_id in node_ids}

    def _joined(self, path: list[str]) -> array[int]:
        arrays = self.known_arrays(path)
        ids = array("q")
        for node_id in path:
            ids.extend(arrays[node_id])
        return ids
