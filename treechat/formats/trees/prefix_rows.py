"""Merge flat rows of messages into trees: rows that share a prefix of (role, text, calls and results) share its nodes.

A node's id is a hash of its whole path, so the same rows give the same nodes in any file. Documents are yielded in
portions; the store already has the nodes that a portion shares with an earlier one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from treechat.formats.document import Document, ImportReport
from treechat.formats.trees.content import Content
from treechat.formats.trees.draft import MAX_NODES, Draft, derived_id
from treechat.tree import Role

PORTION_BYTES = 32 * 1024 * 1024
"""Size of the rows held in memory before they are yielded as documents."""


class RowMessage(NamedTuple):
    """One message of a row.

    role: role of the node.
    content: its text and parts.
    meta: further data for the node's meta.
    model: the model that generated it, None if unknown.
    """

    role: Role
    content: Content
    meta: Mapping[str, Any] = {}
    model: str | None = None


class PrefixRows:
    """Collects the rows of one file and yields documents; `source` is the name of the format."""

    def __init__(self, source: str, report: ImportReport) -> None:
        self.source, self.report = source, report
        self._drafts: dict[str, tuple[Draft, set[str]]] = {}
        self._num_bytes = 0

    def add(
        self, row: Sequence[RowMessage], place: str, meta: Mapping[str, Any] | None = None, is_chosen: bool = False
    ) -> Iterator[Document]:
        """Add a row; yield documents when a portion is full.

        row: its messages, the first one first.
        place: file and place, for the report.
        meta: data of the whole row, stored with its last message.
        is_chosen: make the row's last message current; a later chosen row overrides it.
        """
        if not row:
            self.report.drop(place, "it has no messages")
            return
        path = ""
        for number, message in enumerate(row, 1):
            parent_path, path = path, derived_id(path, message.role, message.content.text, *message.content.identity)
            if number == 1:
                if path not in self._drafts:
                    self._drafts[path] = Draft(self.source, path), set()
                draft, known_ids = self._drafts[path]
            if path in known_ids:
                continue
            if number > MAX_NODES:
                self.report.fail(place, f"more than {MAX_NODES:,} messages in one row; the rest is left out")
                break
            known_ids.add(path)
            extra = dict(message.meta) | (dict(meta or {}) if number == len(row) else {})
            draft.add(path, parent_path or None, message.role, message.content, model=message.model, meta=extra)
            # A node takes about 1,000 bytes in addition to its text.
            self._num_bytes += len(message.content.text) + 1_000
        if is_chosen:
            draft.current = path
        if self._num_bytes >= PORTION_BYTES:
            for document in self.flush(place):
                yield replace(document, is_part=True)

    def flush(self, place: str) -> Iterator[Document]:
        """Yield the documents of all rows that are still held."""
        drafts, self._drafts, self._num_bytes = self._drafts, {}, 0
        while drafts:
            draft, _ = drafts.pop(next(iter(drafts)))
            yield draft.document(self.report, place)
