"""Conversations: create, list and open them. Opening repairs damaged structure, so a conversation always opens."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from treechat.errors import NodeNotFound, StoreError
from treechat.store.codec import clean, dump_json, load_mapping
from treechat.store.connection import Connection, SqlRow
from treechat.store.trees import read_nodes, repaired_tree, visible_current
from treechat.store.values import ConversationInfo, new_id, short_id
from treechat.tree import Conversation, Tree

CONVERSATION_COLUMNS = "id, title, created_at, updated_at, current_id, meta"

UNFINISHED = 2
"""The value of `hidden` for a conversation or node that an import has not finished writing."""


def conversation_from(row: SqlRow) -> Conversation:
    """The conversation of a row of `CONVERSATION_COLUMNS`."""
    conversation_id, title, created_at, updated_at, current_id, meta = row
    return Conversation(conversation_id, title, created_at, updated_at, current_id, load_mapping(meta))


def read_conversation(conn: sqlite3.Connection, conversation_id: str) -> Conversation:
    """The conversation of that id, hidden or not. Raises NodeNotFound."""
    query = f"SELECT {CONVERSATION_COLUMNS} FROM conversations WHERE id = ?"
    row = conn.execute(query, (clean(conversation_id),)).fetchone()
    if row is None:
        raise NodeNotFound(f"There is no conversation {short_id(conversation_id)}", "`treechat ls` lists them")
    return conversation_from(row)


def touch(conn: sqlite3.Connection, conversation_id: str, changed_at: float | None = None) -> None:
    """Record a change, which moves the conversation up in the list.

    changed_at: seconds since the epoch; None for now.
    """
    conn.execute(
        "UPDATE conversations SET updated_at = max(updated_at, ?) WHERE id = ?",
        (time.time() if changed_at is None else changed_at, conversation_id),
    )


def write_current(conn: sqlite3.Connection, conversation_id: str, node_id: str | None) -> None:
    """Write the conversation's current node."""
    conn.execute("UPDATE conversations SET current_id = ? WHERE id = ?", (node_id, conversation_id))


def open_tree(connection: Connection, conversation_id: str) -> Tree:
    """`Conversations.load_tree`, for the parts of the store that need it."""
    with connection.reading() as conn:
        conversation = read_conversation(conn, conversation_id)
        tree, notes = repaired_tree(read_nodes(conn, conversation.id))
        current_id = visible_current(tree, conversation.current_id)
        if conversation.current_id is not None and conversation.current_id not in tree:
            notes.append(f"{short_id(conversation.current_id)} was current and is gone")
        connection.repairs.extend(f"conversation {short_id(conversation.id)}: {note}" for note in notes)
        if current_id != conversation.current_id:
            # A read-only file must open, too.
            with suppress(StoreError), connection.transaction():
                write_current(conn, conversation.id, current_id)
    return tree


class Conversations(Connection):
    """Create, list and open conversations."""

    def create_conversation(
        self,
        title: str = "",
        *,
        id: str | None = None,
        created_at: float | None = None,
        updated_at: float | None = None,
        source: str | None = None,
        source_id: str | None = None,
        meta: Mapping[str, Any] | None = None,
        is_unfinished: bool = False,
    ) -> Conversation:
        """Create an empty conversation.

        id: None draws one.
        created_at: seconds since the epoch; None for now.
        updated_at: seconds since the epoch; None for `created_at`.
        source: the format that the conversation was imported from.
        source_id: its id in that source.
        meta: a JSON object stored with the conversation.
        is_unfinished: hide it until `finish_import`, for an import in several transactions.
        """
        created_at = time.time() if created_at is None else created_at
        updated_at = created_at if updated_at is None else updated_at
        conversation = Conversation(id or new_id(), clean(title), created_at, updated_at, None, dict(meta or {}))
        origin = tuple(None if value is None else clean(value) for value in (source, source_id))
        with self.transaction() as conn:
            conn.execute(
                "INSERT INTO conversations (id, title, created_at, updated_at, meta, hidden, source, source_id)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    conversation.id,
                    conversation.title,
                    created_at,
                    updated_at,
                    dump_json(conversation.meta),
                    UNFINISHED * is_unfinished,
                    *origin,
                ),
            )
        return conversation

    def conversation(self, conversation_id: str) -> Conversation:
        """The conversation of that id, hidden or not. Raises NodeNotFound."""
        with self.reading() as conn:
            return read_conversation(conn, conversation_id)

    def visible_conversation(self, conversation_id: str) -> Conversation | None:
        """The conversation of that id; None if there is none or it is hidden."""
        query = f"SELECT {CONVERSATION_COLUMNS} FROM conversations WHERE id = ? AND NOT hidden"
        row = self.row(query, (clean(conversation_id),))
        return None if row is None else conversation_from(row)

    def find_source(self, source: str, source_id: str) -> Conversation | None:
        """The visible conversation imported from that source; a repeated import finds it this way."""
        row = self.row(
            f"SELECT {CONVERSATION_COLUMNS} FROM conversations"
            " WHERE source = ? AND source_id = ? AND NOT hidden ORDER BY seq DESC LIMIT 1",
            (clean(source), clean(source_id)),
        )
        return None if row is None else conversation_from(row)

    def source_of(self, conversation_id: str) -> tuple[str, str] | None:
        """The source and the id there, as `find_source` takes them; None if the conversation was not imported."""
        query = "SELECT source, source_id FROM conversations WHERE id = ? AND source_id IS NOT NULL"
        row = self.row(query, (conversation_id,))
        return None if row is None else (str(row[0]), str(row[1]))

    def titles(self) -> list[tuple[str, str]]:
        """Ids and titles of the visible conversations, the last changed first. Reads no node."""
        query = "SELECT id, title FROM conversations WHERE NOT hidden ORDER BY updated_at DESC, seq DESC"
        return [(row[0], row[1]) for row in self.rows(query)]

    def conversations(self, limit: int | None = None, ids: Collection[str] | None = None) -> list[ConversationInfo]:
        """Visible conversations, the last changed first.

        limit: the most to return; None for all.
        ids: return only these; the cost grows with their nodes.
        """
        query = (
            "SELECT id, title, created_at, updated_at, current_id,"
            " EXISTS (SELECT 1 FROM nodes WHERE conversation_id = c.id AND hidden) FROM conversations c"
            " WHERE NOT hidden {} ORDER BY updated_at DESC, seq DESC LIMIT ?"
        )
        num = -1 if limit is None else limit
        if ids is None:
            rows = self.rows(query.format(""), (num,))
        else:
            rows = [row for i in ids for row in self.rows(query.format("AND id = ?"), (i, num))]
        counts = self._counts(None if limit is None and ids is None else [row[0] for row in rows])
        infos = []
        for conversation_id, title, created_at, updated_at, current_id, any_hidden in rows:
            num_nodes, num_forks = counts.get(conversation_id, (0, 0))
            if any_hidden:
                # Nodes below a hidden node are hidden, too; only a walk of the tree finds them.
                num_nodes, num_forks = self._visible_counts(conversation_id)
            infos.append(
                ConversationInfo(conversation_id, title, num_nodes, num_forks, created_at, updated_at, current_id)
            )
        return infos

    def _counts(self, conversation_ids: Sequence[str] | None) -> dict[str, tuple[int, int]]:
        """Nodes and forks by conversation id (None: of all conversations), hidden nodes included."""
        query = (
            "SELECT conversation_id, sum(n), sum(n > 1 AND parent_id IS NOT NULL) FROM"
            " (SELECT conversation_id, parent_id, count(*) AS n FROM nodes {} GROUP BY conversation_id, parent_id)"
            " GROUP BY conversation_id"
        )
        if conversation_ids is None:
            rows = self.rows(query.format(""))
        else:
            rows = [row for i in conversation_ids for row in self.rows(query.format("WHERE conversation_id = ?"), (i,))]
        return {conversation_id: (num_nodes, num_forks) for conversation_id, num_nodes, num_forks in rows}

    def _visible_counts(self, conversation_id: str) -> tuple[int, int]:
        with self.reading() as conn:
            tree, _ = repaired_tree(read_nodes(conn, conversation_id))
        visible = list(tree.walk())
        return len(visible), sum(tree.is_fork(node_id) for node_id in visible)

    def load_tree(self, conversation_id: str) -> Tree:
        """The structure with its previews; reads no text. Children are in the order of their creation.

        Damage is repaired in the returned tree and noted in `repairs`. The rows stay as they are, with one exception:
        a missing or hidden `current_id` is set to a visible node. Raises NodeNotFound.
        """
        return open_tree(self, conversation_id)

    def set_current(self, conversation_id: str, node_id: str | None) -> None:
        """Write the current node: the node at which the conversation opens next, and the meaning of `@`."""
        with self.transaction() as conn:
            write_current(conn, conversation_id, node_id)
