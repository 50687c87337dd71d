"""Nodes: added and read. A node's text never changes; an edit is another node beside it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from treechat.errors import NodeNotFound
from treechat.store.codec import clean, dump_json, load_mapping
from treechat.store.connection import Row
from treechat.store.conversations import NODE_COLUMNS, UNFINISHED, Conversations, node_from
from treechat.store.ids import new_id, short_id
from treechat.store.spans import Spans, chunks, write_spans, write_turns
from treechat.store.values import NewNode
from treechat.tree import Node, Role, Span, Status, Turn, preview_of

INSERT = (
    "INSERT INTO nodes (id, conversation_id, parent_id, role, status, created_at, label, bookmarked, hidden, preview,"
    " meta, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class Nodes(Conversations, Spans):
    """The part of the store that knows nodes."""

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
        """Add the last child of `parent_id` (a root for None). Raises NodeNotFound, or StoreError for an id in use."""
        new = NewNode(
            parent_id, role, text, id, status, created_at, meta or {}, label, bookmarked, spans=spans, turn=turn
        )
        return self.add_nodes(conversation_id, [new])[0]

    def add_nodes(
        self, conversation_id: str, rows: Iterable[NewNode | Mapping[str, Any]], *, is_unfinished: bool = False
    ) -> list[Node]:
        """Add many in one transaction, all or none; children of one parent keep the order of `rows`.

        is_unfinished: out of sight until `finish_import`.

        A row is a NewNode or a mapping of its fields. A parent may be in the conversation already or anywhere in the
        batch. Raises NodeNotFound for a parent that is in neither.
        """
        batch = [row if isinstance(row, NewNode) else NewNode(**row) for row in rows]
        now = time.time()
        nodes = [_node_of(new, now) for new in batch]
        unfinished = UNFINISHED * is_unfinished
        values = [_row_of(conversation_id, new, node, unfinished) for new, node in zip(batch, nodes, strict=True)]
        with self._writing() as conn:
            self.conversation(conversation_id)
            self._require_parents(conversation_id, nodes)
            conn.executemany(INSERT, values)
            pairs = list(zip(batch, nodes, strict=True))
            write_spans(conn, ((node.id, span) for new, node in pairs for span in new.spans))
            write_turns(conn, ((node.id, new.turn) for new, node in pairs if new.turn is not None))
            self._touch(conversation_id, max((node.created_at for node in nodes), default=0.0))
        return nodes

    def _require_parents(self, conversation_id: str, nodes: Sequence[Node]) -> None:
        inside = {node.id for node in nodes}
        outside = [n.parent_id for n in nodes if n.parent_id is not None and n.parent_id not in inside]
        for piece, marks in chunks(outside):
            query = f"SELECT id FROM nodes WHERE conversation_id = ? AND id IN ({marks})"
            found = {node_id for (node_id,) in self._all(query, (conversation_id, *piece))}
            for parent_id in piece:
                if parent_id not in found:
                    raise NodeNotFound(f"There is no node {short_id(parent_id)} in this conversation to go under")

    def node(self, node_id: str) -> Node:
        """The node of that id, hidden or not. Raises NodeNotFound."""
        row = self._one(f"SELECT {NODE_COLUMNS} FROM nodes WHERE id = ?", (node_id,))
        return node_from(_found(row, node_id))

    def conversation_of(self, node_id: str) -> str:
        """The id of the conversation that the node is in. Raises NodeNotFound."""
        row = self._one("SELECT conversation_id FROM nodes WHERE id = ?", (node_id,))
        return str(_found(row, node_id)[0])

    def meta(self, node_id: str) -> Mapping[str, Any]:
        """What an import or the chat kept beside the text. Raises NodeNotFound."""
        row = self._one("SELECT meta FROM nodes WHERE id = ?", (node_id,))
        return load_mapping(_found(row, node_id)[0])

    def metas(self, node_ids: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """`meta` of several nodes; ids that name no node are left out."""
        found: dict[str, Mapping[str, Any]] = {}
        with self._reading() as conn:
            for piece, marks in chunks(node_ids):
                for node_id, meta in conn.execute(f"SELECT id, meta FROM nodes WHERE id IN ({marks})", piece):
                    found[node_id] = load_mapping(meta)
        return found

    def text(self, node_id: str) -> str:
        """The whole text; that of a streaming reply as far as it was flushed. Raises NodeNotFound."""
        found = self.texts([node_id])
        if node_id not in found:
            raise NodeNotFound(f"There is no node {short_id(node_id)}")
        return found[node_id]

    def texts(self, node_ids: Iterable[str]) -> dict[str, str]:
        """Whole texts by node id; ids that name no node are left out."""
        found: dict[str, str] = {}
        with self._reading() as conn:
            for piece, marks in chunks(node_ids):
                query = f"SELECT id, status, text FROM nodes WHERE id IN ({marks})"
                for node_id, status, text in conn.execute(query, piece).fetchall():
                    found[node_id] = self._flushed(node_id)[0] if status == "streaming" else text
        return found

    def text_lens(self, node_ids: Iterable[str]) -> dict[str, int]:
        """UTF-8 bytes of the texts by node id, as far as their rows have them; no text leaves the database."""
        found: dict[str, int] = {}
        with self._reading() as conn:
            for piece, marks in chunks(node_ids):
                query = f"SELECT id, length(CAST(text AS BLOB)) FROM nodes WHERE id IN ({marks})"
                found.update(conn.execute(query, piece).fetchall())
        return found


def _node_of(new: NewNode, now: float) -> Node:
    created_at = now if new.created_at is None else new.created_at
    label = None if new.label is None else clean(new.label)
    preview = preview_of(clean(new.text))
    return Node(
        new.id or new_id(), new.parent_id, new.role, new.status, created_at, preview, label, new.bookmarked, new.hidden
    )


def _row_of(conversation_id: str, new: NewNode, node: Node, unfinished: int) -> Row:
    identity = (node.id, conversation_id, node.parent_id, node.role, node.status, node.created_at)
    marks = (node.label, node.bookmarked, unfinished or node.hidden)
    return (*identity, *marks, node.preview, dump_json(dict(new.meta)), clean(new.text))


def _found(row: Row | None, node_id: str) -> Row:
    if row is None:
        raise NodeNotFound(f"There is no node {short_id(node_id)}")
    return row
