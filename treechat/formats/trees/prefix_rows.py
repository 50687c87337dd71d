"""Flat rows of messages become trees: rows that share a prefix of (role, text, calls and results) share those nodes.

A node's id is made from all that leads to it, so that the same rows always give the same nodes, in whatever file. Rows
are given on in portions: what a portion shares with an earlier one is known to the store already.
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
"""Text that is held before it is given on."""


class RowMessage(NamedTuple):
    """One message of a row. meta: what else is known of it."""

    role: Role
    content: Content
    meta: Mapping[str, Any] = {}
    model: str | None = None


class PrefixRows:
    """Rows of one file on their way to documents of the format `source`."""

    def __init__(self, source: str, report: ImportReport) -> None:
        self.source, self.report = source, report
        self._drafts: dict[str, tuple[Draft, set[str]]] = {}
        self._num_bytes = 0

    def add(
        self, row: Sequence[RowMessage], place: str, meta: Mapping[str, Any] | None = None, is_chosen: bool = False
    ) -> Iterator[Document]:
        """Take a row; yields what is ready. meta: of the row; it is kept with its last message. is_chosen: the
        conversation stands at its end, until one that is chosen too comes.
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
            # What a node takes beside its text.
            self._num_bytes += len(message.content.text) + 1_000
        if is_chosen:
            draft.current = path
        if self._num_bytes >= PORTION_BYTES:
            for document in self.flush(place):
                yield replace(document, is_part=True)

    def flush(self, place: str) -> Iterator[Document]:
        """Whatever was not given on yet."""
        drafts, self._drafts, self._num_bytes = self._drafts, {}, 0
        while drafts:
            draft, _ = drafts.pop(next(iter(drafts)))
            yield draft.document(self.report, place)
