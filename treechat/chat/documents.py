"""Whole conversations between the store and the formats: what an export reads and an import writes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from treechat.errors import NodeNotFound
from treechat.formats.document import Document, ImportReport, Message, Source
from treechat.store import NewNode, Store
from treechat.store.ids import new_id
from treechat.tree import Conversation, Tree


def document_of(
    store: Store, conversation_id: str, node_ids: Sequence[str] | None = None, tokens: bool = False
) -> Document:
    """A conversation as a document: all that is visible, or only `node_ids` (parents first). tokens: spans too."""
    tree = store.load_tree(conversation_id)
    # After the tree: loading it leads the current node to a visible one.
    conversation = store.conversation(conversation_id)
    ids = list(tree.walk()) if node_ids is None else list(node_ids)
    texts, turns, metas = store.texts(ids), store.turns(ids), store.metas(ids)
    spans = store.spans_of(ids) if tokens else {}
    messages = []
    for node_id in ids:
        node = tree[node_id]
        labels = (node.label,) if node.label is not None else ()
        found = tuple(spans.get(node_id, ()))
        messages.append(Message(node, texts[node_id], turns.get(node_id), found, labels, metas[node_id]))
    if conversation.current_id not in set(ids):
        conversation = replace(conversation, current_id=ids[-1] if node_ids and ids else None)
    source = store.source_of(conversation_id)
    return Document(conversation, messages, Source(*source) if source else None)


def subtree_of(store: Store, conversation_id: str, node_id: str, tokens: bool = False) -> Document:
    """A node and all below it as a document. The node becomes a root, so its own span, which goes on from what stood
    above it, is left out; one is made from the text where it is needed.
    """
    tree = store.load_tree(conversation_id)
    document = document_of(store, conversation_id, list(tree.subtree(node_id)), tokens)
    root = document.messages[0]
    if root.node.parent_id is not None:
        document.messages[0] = replace(root, node=replace(root.node, parent_id=None), spans=())
    if document.conversation.current_id != store.conversation(conversation_id).current_id:
        conversation = replace(document.conversation, current_id=tree.leaf(node_id))
        document = replace(document, conversation=conversation)
    return document


PORTION = 2_000
"""Nodes that are written at once: 0.2 s in which no other window can write."""

Planned = dict[Source, dict[str, str | None]]
"""What a dry run would have added so far: parents by node id, by conversation."""


def import_document(
    store: Store,
    document: Document,
    source: str,
    report: ImportReport,
    dry_run: bool = False,
    planned: Planned | None = None,
    between: Callable[[], None] | None = None,
) -> str:
    """Add what the store lacks of a document, all or nothing; returns the conversation's id. Importing twice adds
    nothing.

    source: where such ids come from, as "treechat", unless the document says where it came from before. The
    conversation and its nodes keep their ids unless those are taken by others. Counts go to `report`. dry_run: count
    only; `planned` then remembers what the documents before would have added. A large new conversation is written in
    portions, so that other windows can write, and is out of sight until it is whole; between: called between them, and
    may raise. Where it was left off, the next import of it goes on.
    """
    origin = document.conversation
    key = document.source or Source(source, origin.id)
    known = store.find_source(*key) or store.visible_conversation(origin.id)
    unfinished = None if known is not None or dry_run else store.find_unfinished(*key)
    known = known or unfinished
    tree = store.load_tree(known.id) if known else Tree()
    conversation_id = known.id if known else _free_conversation_id(store, origin)
    before: dict[str, str | None] = {} if planned is None else planned.setdefault(key, {})
    is_new = (known is None or unfinished is not None) and not before
    rows = [row for row in _missing_rows(store, document, conversation_id, tree, report) if row.id not in before]
    forks_before = _num_forks(tree, before)
    added = before | {str(row.id): row.parent_id for row in rows}
    forks = _num_forks(tree, added) - forks_before
    if dry_run:
        report.count(conversation_id, origin.title, key, is_new, len(rows), forks)
        before.update(added)
        return conversation_id
    if unfinished is not None or (known is None and len(rows) > PORTION):
        if known is None:
            _create(store, origin, conversation_id, key, is_unfinished=True)
        for start in range(0, len(rows), PORTION):
            if between is not None:
                between()
            store.add_nodes(conversation_id, rows[start : start + PORTION])
        store.finish(conversation_id, _current_in(store, conversation_id, origin))
        report.count(conversation_id, origin.title, key, is_new, len(rows), forks)
        return conversation_id
    report.count(conversation_id, origin.title, key, is_new, len(rows), forks)
    with store.transaction():
        if known is None:
            _create(store, origin, conversation_id, key)
        if rows:
            store.add_nodes(conversation_id, rows)
        if known is None and origin.current_id is not None:
            store.set_current(conversation_id, _current_in(store, conversation_id, origin))
    return conversation_id


def _create(store: Store, origin: Conversation, conversation_id: str, key: Source, is_unfinished: bool = False) -> None:
    store.create_conversation(
        origin.title,
        id=conversation_id,
        created_at=origin.created_at or None,
        updated_at=origin.updated_at or None,
        source=key.name,
        source_id=key.id,
        meta=origin.meta,
        is_unfinished=is_unfinished,
    )


def _current_in(store: Store, conversation_id: str, origin: Conversation) -> str | None:
    if origin.current_id is None:
        return None
    return _ids_in(store, conversation_id, [origin.current_id])[origin.current_id]


def _missing_rows(
    store: Store, document: Document, conversation_id: str, tree: Tree, report: ImportReport
) -> list[NewNode]:
    ids = _ids_in(store, conversation_id, [message.node.id for message in document.messages])
    rows = []
    for message in document.messages:
        node = message.node
        node_id = ids[node.id]
        if node_id in tree:
            continue
        if len(message.labels) > 1:
            report.drop(f"node {node.id}", f"of {len(message.labels)} labels only the first is kept")
        rows.append(
            NewNode(
                None if node.parent_id is None else ids[node.parent_id],
                node.role,
                message.text,
                id=node_id,
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


def _ids_in(store: Store, conversation_id: str, node_ids: Sequence[str]) -> dict[str, str]:
    """Each node's own id; where another conversation has taken that, one that is always made the same way from it."""
    owners = store.conversations_of(node_ids)
    ids = {}
    for node_id in node_ids:
        is_free = owners.get(node_id, conversation_id) == conversation_id
        digest = hashlib.blake2b(f"{conversation_id}/{node_id}".encode(), digest_size=8)
        ids[node_id] = node_id if is_free else digest.hexdigest()
    return ids


def _free_conversation_id(store: Store, origin: Conversation) -> str:
    try:
        store.conversation(origin.id)
    except NodeNotFound:
        return origin.id
    return new_id()


def _num_forks(tree: Tree, added: Mapping[str, str | None]) -> int:
    """Forks of the tree with more nodes in it, given as id to parent id."""
    counts: dict[str, int] = {}
    parents = [node.parent_id for node in tree.nodes.values()] + list(added.values())
    for parent_id in parents:
        if parent_id is not None:
            counts[parent_id] = counts.get(parent_id, 0) + 1
    return sum(count > 1 for count in counts.values())
