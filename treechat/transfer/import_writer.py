"""Write documents into the store: each completely or not at all, and none twice."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

from treechat.errors import FormatError, NodeNotFound, StoreError
from treechat.formats.document import Document, ImportReport, Message, Source
from treechat.store import NewNode, Store, new_id
from treechat.tree import Conversation, Tree

PORTION = 2_000
"""Nodes written in one transaction. It takes 0.2 s, in which no other window can write."""

DryRunNodes = dict[Source, dict[str, str | None]]
"""The nodes that a dry run would have added so far: parents by node id, by conversation."""


def import_document(store: Store, document: Document, source: str, report: ImportReport) -> str:
    """Add the nodes of one document that the store lacks; returns the conversation's id."""
    with Intake(store, report) as intake:
        return intake.take(document, source)


def _ignore() -> None:
    """No-op callback."""


class _Target(NamedTuple):
    """The conversation that a document is written to.

    id: conversation id.
    is_new: this import creates it.
    is_unseen: it is hidden until this import has completed it.
    """

    id: str
    is_new: bool
    is_unseen: bool = False


class _Missing(NamedTuple):
    """The part of a document that the store lacks.

    messages: the missing messages, parents first.
    renamed: new ids, by the ids that another conversation uses already.
    num_forks: forks that these messages add.
    """

    messages: list[Message]
    renamed: Mapping[str, str]
    num_forks: int


class Intake:
    """A context manager that writes the documents of one file into a store.

    A large document, or one of several parts, is written in portions, so that other windows can write between them. It
    is hidden until it is complete. If the context ends with an error, incomplete documents are removed.
    """

    def __init__(
        self,
        store: Store,
        report: ImportReport,
        planned: DryRunNodes | None = None,
        between: Callable[[], None] = _ignore,
    ) -> None:
        """Prepare the writing of documents.

        store: the open database.
        report: gets the counts of complete documents.
        planned: for a dry run, which only counts: the nodes that earlier documents would have added. None writes.
        between: called between portions; it may raise.
        """
        self.store, self.report, self.planned, self._between = store, report, planned, between
        self._run = new_id()
        self._has_begun = self._is_writing = False
        self._in_parts: dict[Source, _Target] = {}
        self._hidden_report = ImportReport()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or (isinstance(error, OSError | FormatError) and not self._is_writing):
            # The file ends at the unreadable part, so the documents before it are complete.
            if self._in_parts:
                self.store.finish_import(self._run)
                self.report.add(self._hidden_report)
            return
        if self._has_begun:
            # If the removal fails, for example on a full disk, a later import removes the rest.
            with suppress(StoreError):
                self.store.drop_import(self._run)

    def take(self, document: Document, source: str) -> str:
        """Add the nodes of the document that the store lacks; returns the conversation's id.

        A conversation that another import writes now is skipped and reported. The conversation and its nodes keep their
        ids, unless other ones use these ids already.

        document: the document.
        source: the origin of its ids, for example "treechat"; a source in the document takes precedence.
        """
        self._is_writing = True
        conversation_id = self._take(document, document.source or Source(source, document.conversation.id))
        self._is_writing = False
        return conversation_id

    def _take(self, document: Document, key: Source) -> str:
        if self.planned is not None:
            return self._plan(document, key, self.planned)
        in_portions = document.is_part or key in self._in_parts or len(document.messages) > PORTION
        # One transaction for lookup and write: of two simultaneous imports, the second sees the nodes of the first.
        with self.store.transaction():
            target = self._target(document.conversation, key, in_portions)
            if self.store.is_written_elsewhere(target.id, self._run):
                name = document.conversation.title or target.id
                self.report.fail(name, "another import is writing this conversation; import it again afterwards")
                return target.id
            if in_portions:
                self._has_begun = True
                self.store.begin_import(target.id, self._run)
            else:
                missing = _missing(self.store, document, target.id, self.report)
                if missing.messages:
                    self.store.add_nodes(target.id, _rows(missing.messages, missing.renamed))
                if target.is_new:
                    self._set_current(document.conversation, target.id, missing)
        if in_portions:
            missing = self._add_in_portions(document, target)
            if document.is_part or key in self._in_parts:
                self._in_parts[key] = target._replace(is_new=False)
            else:
                self.store.finish_import(self._run, target.id)
        report = self._hidden_report if key in self._in_parts else self.report
        counts = len(missing.messages), missing.num_forks
        report.count(target.id, document.conversation.title, key, target.is_new, *counts)
        return target.id

    def _target(self, origin: Conversation, key: Source, in_portions: bool) -> _Target:
        if key in self._in_parts:
            return self._in_parts[key]
        if (known_id := _known_id(self.store, origin, key) or self.store.unfinished(*key)) is not None:
            return _Target(known_id, is_new=False)
        conversation_id = _free_conversation_id(self.store, origin)
        self.store.create_conversation(
            origin.title,
            id=conversation_id,
            created_at=origin.created_at or None,
            updated_at=origin.updated_at or None,
            source=key.name,
            source_id=key.id,
            meta=origin.meta,
            is_unfinished=in_portions,
        )
        return _Target(conversation_id, is_new=True, is_unseen=in_portions)

    def _add_in_portions(self, document: Document, target: _Target) -> _Missing:
        missing = _missing(self.store, document, target.id, self.report)
        for start in range(0, len(missing.messages), PORTION):
            self._between()
            rows = _rows(missing.messages[start : start + PORTION], missing.renamed)
            with self.store.transaction():
                self.store.begin_import(target.id, self._run)
                self.store.add_nodes(target.id, rows, is_unfinished=not target.is_unseen)
        if target.is_unseen:
            self._set_current(document.conversation, target.id, missing)
        return missing

    def _set_current(self, origin: Conversation, conversation_id: str, missing: _Missing) -> None:
        if (node_id := origin.current_id) is not None:
            self.store.set_current(conversation_id, missing.renamed.get(node_id, node_id))

    def _plan(self, document: Document, key: Source, planned: DryRunNodes) -> str:
        origin = document.conversation
        known_id = _known_id(self.store, origin, key)
        conversation_id = known_id or _free_conversation_id(self.store, origin)
        before = planned.setdefault(key, {})
        missing = _missing(self.store, document, conversation_id, self.report, before)
        is_new = known_id is None and not before
        before.update((row.id or "", row.parent_id) for row in _rows(missing.messages, missing.renamed))
        self.report.count(conversation_id, origin.title, key, is_new, len(missing.messages), missing.num_forks)
        return conversation_id


def _known_id(store: Store, origin: Conversation, key: Source) -> str | None:
    """Return the id of the visible conversation that this one was imported as before."""
    known = store.find_source(*key) or store.visible_conversation(origin.id)
    return known.id if known else None


def _free_conversation_id(store: Store, origin: Conversation) -> str:
    try:
        store.conversation(origin.id)
    except NodeNotFound:
        return origin.id
    return new_id()


def _missing(
    store: Store,
    document: Document,
    conversation_id: str,
    report: ImportReport,
    planned: Mapping[str, str | None] | None = None,
) -> _Missing:
    """Return the part of a document that the store lacks.

    store: the open database.
    document: the document.
    conversation_id: the conversation that it is written to.
    report: gets the labels that are dropped.
    planned: parents by node id of further nodes that count as stored.
    """
    planned = planned or {}
    try:
        tree = store.load_tree(conversation_id)
    except NodeNotFound:
        tree = Tree()
    renamed = _renamed(store, conversation_id, [message.node.id for message in document.messages])
    messages = []
    added: Counter[str] = Counter()
    for message in document.messages:
        node = message.node
        node_id = renamed.get(node.id, node.id)
        if node_id in tree or node_id in planned:
            continue
        if len(message.labels) > 1:
            report.drop(f"node {node.id}", f"only the first of {len(message.labels)} labels is kept")
        messages.append(message)
        if node.parent_id is not None:
            added[renamed.get(node.parent_id, node.parent_id)] += 1
    before = Counter(node.parent_id for node in tree.nodes.values()) + Counter(planned.values())
    num_forks = sum(before[parent_id] <= 1 < before[parent_id] + num for parent_id, num in added.items())
    return _Missing(messages, renamed, num_forks)


def _renamed(store: Store, conversation_id: str, node_ids: Sequence[str]) -> dict[str, str]:
    """Return new ids by the ids that another conversation uses. The same input always gives the same new id."""
    renamed = {}
    for node_id, owner_id in store.conversations_of(node_ids).items():
        if owner_id != conversation_id:
            digest = hashlib.blake2b(f"{conversation_id}/{node_id}".encode(), digest_size=8)
            renamed[node_id] = digest.hexdigest()
    return renamed


def _rows(messages: Iterable[Message], renamed: Mapping[str, str]) -> list[NewNode]:
    rows = []
    for message in messages:
        node = message.node
        rows.append(
            NewNode(
                None if node.parent_id is None else renamed.get(node.parent_id, node.parent_id),
                node.role,
                message.text,
                id=renamed.get(node.id, node.id),
                status=node.status,
                created_at=node.created_at,
                meta=message.meta,
                label=message.labels[0] if message.labels else None,
                bookmarked=node.bookmarked,
                spans=message.spans,
                turn=message.turn,
            )
        )
    return rows
