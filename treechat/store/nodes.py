"""Nodes: add and read them. A node's text never changes; an edit is a new sibling."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from treechat.errors import NodeNotFound
from treechat.store.codec import clean, dump_json, load_mapping
from treechat.store.connection import Connection, SqlRow
from treechat.store.conversations import UNFINISHED, read_conversation, touch
from treechat.store.spans import chunks, read_flushed, write_spans, write_turns
from treechat.store.trees import NODE_COLUMNS, node_from
from treechat.store.values import NewNode, new_id, short_id
from treechat.tree import Node, Role, Span, Status, Turn, preview_of

INSERT = (
    "INSERT INTO nodes (id, conversation_id, parent_id, role, status, created_at, label, bookmarked, hidden, preview,"
    " meta, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class Nodes(Connection):
    """Add and read nodes."""

    def add_node(
        self,
        conversation_id: str,
        parent_id: str | None,
        role: Role,
        text: str,
        *,
        id: str | None = None,
        status: Status = "complete",
        created_at: float | None = None,
        meta: Mapping[str, Any] | None = None,
        label: str | None = None,
        bookmarked: bool = False,
        spans: Sequence[Span] = (),
        turn: Turn | None = None,
    ) -> Node:
        """Add the last child of `parent_id` (None: a root). The other parameters are the fields of `NewNode`.

        Raises NodeNotFound, and StoreError for an id in use.
        """
        new = NewNode(
            parent_id, role, text, id, status, created_at, meta or {}, label, bookmarked, spans=spans, turn=turn
        )
        return self.add_nodes(conversation_id, [new])[0]

    def add_nodes(
        self, conversation_id: str, rows: Iterable[NewNode | Mapping[str, Any]], *, is_unfinished: bool = False
    ) -> list[Node]:
        """Add many nodes in one transaction, all or none.

        rows: NewNodes or mappings of their fields. Children of one parent keep this order. A parent may be in the
        conversation or anywhere in `rows`.
        is_unfinished: hide them until `finish_import`.

        Raises NodeNotFound for a parent that is in neither.
        """
        batch = [row if isinstance(row, NewNode) else NewNode(**row) for row in rows]
        with self.transaction() as conn:
            return insert_nodes(conn, conversation_id, batch, is_unfinished=is_unfinished)

    def node(self, node_id: str) -> Node:
        """The node of that id, hidden or not. Raises NodeNotFound."""
        with self.reading() as conn:
            return read_node(conn, node_id)

    def conversation_of(self, node_id: str) -> str:
        """The id of the node's conversation. Raises NodeNotFound."""
        with self.reading() as conn:
            return conversation_id_of(conn, node_id)

    def meta(self, node_id: str) -> Mapping[str, Any]:
        """The JSON object that an import or the chat stored with the node. Raises NodeNotFound."""
        row = self.row("SELECT meta FROM nodes WHERE id = ?", (node_id,))
        return load_mapping(_require_row(row, node_id)[0])

    def metas(self, node_ids: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """`meta` by node id, without the ids that name no node."""
        found: dict[str, Mapping[str, Any]] = {}
        with self.reading() as conn:
            for chunk, marks in chunks(node_ids):
                for node_id, meta in conn.execute(f"SELECT id, meta FROM nodes WHERE id IN ({marks})", chunk):
                    found[node_id] = load_mapping(meta)
        return found

    def text(self, node_id: str) -> str:
        """The whole text; for a streaming reply, the text flushed so far. Raises NodeNotFound."""
        found = self.texts([node_id])
        if node_id not in found:
            raise NodeNotFound(f"There is no node {short_id(node_id)}")
        return found[node_id]

    def texts(self, node_ids: Iterable[str]) -> dict[str, str]:
        """Whole texts by node id, without the ids that name no node."""
        found: dict[str, str] = {}
        with self.reading() as conn:
            for chunk, marks in chunks(node_ids):
                query = f"SELECT id, status, text FROM nodes WHERE id IN ({marks})"
                for node_id, status, text in conn.execute(query, chunk).fetchall():
                    found[node_id] = read_flushed(conn, node_id)[0] if status == "streaming" else text
        return found

    def text_lens(self, node_ids: Iterable[str]) -> dict[str, int]:
        """UTF-8 bytes of the texts by node id, without flushes of a streaming reply. No text leaves the database."""
        found: dict[str, int] = {}
        with self.reading() as conn:
            for chunk, marks in chunks(node_ids):
                query = f"SELECT id, length(CAST(text AS BLOB)) FROM nodes WHERE id IN ({marks})"
                found.update(conn.execute(query, chunk).fetchall())
        return found


def insert_nodes(
    conn: sqlite3.Connection, conversation_id: str, batch: Sequence[NewNode], *, is_unfinished: bool = False
) -> list[Node]:
    """`Nodes.add_nodes` within the transaction of the caller."""
    now = time.time()
    nodes = [_node_of(new, now) for new in batch]
    unfinished = UNFINISHED * is_unfinished
    values = [_row_of(conversation_id, new, node, unfinished) for new, node in zip(batch, nodes, strict=True)]
    read_conversation(conn, conversation_id)
    _require_parents(conn, conversation_id, nodes)
    conn.executemany(INSERT, values)
    pairs = list(zip(batch, nodes, strict=True))
    write_spans(conn, ((node.id, span) for new, node in pairs for span in new.spans))
    write_turns(conn, ((node.id, new.turn) for new, node in pairs if new.turn is not None))
    touch(conn, conversation_id, max((node.created_at for node in nodes), default=0.0))
    return nodes


def read_node(conn: sqlite3.Connection, node_id: str) -> Node:
    """The node of that id, hidden or not. Raises NodeNotFound."""
    row = conn.execute(f"SELECT {NODE_COLUMNS} FROM nodes WHERE id = ?", (node_id,)).fetchone()
    return node_from(_require_row(row, node_id))


def conversation_id_of(conn: sqlite3.Connection, node_id: str) -> str:
    """The id of the node's conversation. Raises NodeNotFound."""
    row = conn.execute("SELECT conversation_id FROM nodes WHERE id = ?", (node_id,)).fetchone()
    return str(_require_row(row, node_id)[0])


def _require_parents(conn: sqlite3.Connection, conversation_id: str, nodes: Sequence[Node]) -> None:
    inside = {node.id for node in nodes}
    outside = [n.parent_id for n in nodes if n.parent_id is not None and n.parent_id not in inside]
    for chunk, marks in chunks(outside):
        query = f"SELECT id FROM nodes WHERE conversation_id = ? AND id IN ({marks})"
        found = {node_id for (node_id,) in conn.execute(query, (conversation_id, *chunk))}
        for parent_id in chunk:
            if parent_id not in found:
                raise NodeNotFound(f"This conversation has no node {short_id(parent_id)} to be the parent")


def _node_of(new: NewNode, now: float) -> Node:
    created_at = now if new.created_at is None else new.created_at
    label = None if new.label is None else clean(new.label)
    preview = preview_of(clean(new.text))
    return Node(
        new.id or new_id(), new.parent_id, new.role, new.status, created_at, preview, label, new.bookmarked, new.hidden
    )


def _row_of(conversation_id: str, new: NewNode, node: Node, unfinished: int) -> SqlRow:
    identity = (node.id, conversation_id, node.parent_id, node.role, node.status, node.created_at)
    marks = (node.label, node.bookmarked, unfinished or node.hidden)
    return (*identity, *marks, node.preview, dump_json(dict(new.meta)), clean(new.text))


def _require_row(row: SqlRow | None, node_id: str) -> SqlRow:
    if row is None:
        raise NodeNotFound(f"There is no node {short_id(node_id)}")
    return row
