"""Documents into the store: each all or nothing, and nothing twice."""

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
"""Nodes that are written at once: 0.2 s in which no other window can write."""

DryRunNodes = dict[Source, dict[str, str | None]]
"""What a dry run would have added so far: parents by node id, by conversation."""


def import_document(store: Store, document: Document, source: str, report: ImportReport) -> str:
    """Add what the store lacks of one document; returns the conversation's id."""
    with Intake(store, report) as intake:
        return intake.take(document, source)


def _ignore() -> None:
    """No one waits between two portions."""


class _Target(NamedTuple):
    """The conversation that a document goes into. is_unseen: it is made by this import, and not whole yet."""

    id: str
    is_new: bool
    is_unseen: bool = False


class _Missing(NamedTuple):
    """What the store lacks of a document. renamed: ids here by those that others have taken."""

    messages: list[Message]
    renamed: Mapping[str, str]
    num_forks: int


class Intake:
    """One file's documents on their way into a store.

    A large document, or one of several parts, is written in portions, so that other windows can write, and is out of
    sight until it is whole. Left with an error, nothing stays of one that is not.
    """

    def __init__(
        self,
        store: Store,
        report: ImportReport,
        planned: DryRunNodes | None = None,
        between: Callable[[], None] = _ignore,
    ) -> None:
        """report: gets the counts of what is in sight. planned: for a dry run, which counts only; it remembers what
        the documents before would have added. between: called between portions, and may raise.
        """
        self.store, self.report, self.planned, self._between = store, report, planned, between
        self._run = new_id()
        self._has_begun = self._is_taking = False
        self._in_parts: dict[Source, _Target] = {}
        self._held_back = ImportReport()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or (isinstance(error, OSError | FormatError) and not self._is_taking):
            # Behind what cannot be read nothing more comes: what came before it is all there is.
            if self._in_parts:
                self.store.finish_import(self._run)
                self.report.add(self._held_back)
            return
        if self._has_begun:
            # What cannot be removed now, on a full disk, is removed later.
            with suppress(StoreError):
                self.store.drop_import(self._run)

    def take(self, document: Document, source: str) -> str:
        """Add what the store lacks of the document; returns the conversation's id. What another import is writing is
        left to that one, and reported.

        source: where such ids come from, as "treechat", unless the document says where it came from before. The
        conversation and its nodes keep their ids unless those are taken by others.
        """
        self._is_taking = True
        conversation_id = self._take(document, document.source or Source(source, document.conversation.id))
        self._is_taking = False
        return conversation_id

    def _take(self, document: Document, key: Source) -> str:
        if self.planned is not None:
            return self._plan(document, key, self.planned)
        in_portions = document.is_part or key in self._in_parts or len(document.messages) > PORTION
        # Looked up and written as one: of two imports at once the second one sees what the first one did.
        with self.store.transaction():
            target = self._target(document.conversation, key, in_portions)
            if self.store.is_written_elsewhere(target.id, self._run):
                name = document.conversation.title or target.id
                self.report.fail(name, "another import is writing this conversation; import it again after that")
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
        report = self._held_back if key in self._in_parts else self.report
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
    """The conversation in sight that this one was imported as."""
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
    """planned: parents by node id of what counts as there, too."""
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
            report.drop(f"node {node.id}", f"of {len(message.labels)} labels only the first is kept")
        messages.append(message)
        if node.parent_id is not None:
            added[renamed.get(node.parent_id, node.parent_id)] += 1
    before = Counter(node.parent_id for node in tree.nodes.values()) + Counter(planned.values())
    num_forks = sum(before[parent_id] <= 1 < before[parent_id] + num for parent_id, num in added.items())
    return _Missing(messages, renamed, num_forks)


def _renamed(store: Store, conversation_id: str, node_ids: Sequence[str]) -> dict[str, str]:
    """For the ids that another conversation has taken, one that is always made the same way from it."""
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
