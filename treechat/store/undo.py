"""Changes of structure, and undo: each change is one event that holds the value before and after.

The events of a conversation are a list with a cut: done events before it, undone events after it. A new change deletes
the undone events. Adding a node records no event: an added node can be hidden, not undone. Copying or replaying a
branch records one event; undoing it hides the branch.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from treechat.errors import NodeNotFound, UsageError
from treechat.store.codec import clean, dump_json
from treechat.store.connection import Connection, SqlRow
from treechat.store.conversations import read_conversation, touch
from treechat.store.nodes import conversation_id_of, insert_nodes
from treechat.store.values import AddedKind, Event, EventKind, NewNode, short_id
from treechat.tree import Node


class _Target(NamedTuple):
    """The column that an event changes, in one row."""

    table: str
    column: str


TARGETS: dict[EventKind, _Target] = {
    "hide": _Target("nodes", "hidden"),
    "label": _Target("nodes", "label"),
    "bookmark": _Target("nodes", "bookmarked"),
    "move": _Target("nodes", "parent_id"),
    "rename": _Target("conversations", "title"),
    "hide_conversation": _Target("conversations", "hidden"),
    "graft": _Target("nodes", "hidden"),
    "rebase": _Target("nodes", "hidden"),
}
FLAGS = {"hidden", "bookmarked"}
EVENT_COLUMNS = "id, conversation_id, kind, node_id, before, after, created_at"


class Undo(Connection):
    """Change structure, undo and redo. Setting the current value again records no event."""

    def hide(self, node_id: str, hidden: bool = True) -> Event | None:
        """Hide the node and all nodes below it, or show them again. Raises NodeNotFound."""
        return self._change("hide", node_id, hidden)

    def set_label(self, node_id: str, label: str | None) -> Event | None:
        """Set the node's label; None or blank removes it. Raises NodeNotFound."""
        return self._change("label", node_id, clean(label).strip() or None if label is not None else None)

    def set_bookmark(self, node_id: str, bookmarked: bool) -> Event | None:
        """Set or remove the node's bookmark. Raises NodeNotFound."""
        return self._change("bookmark", node_id, bookmarked)

    def move(self, node_id: str, new_parent_id: str | None) -> Event | None:
        """Move the node, with all nodes below it, under another node of its conversation (None makes it a root).

        Raises NodeNotFound, and UsageError if the new parent is the node itself, below it or in another conversation.
        """
        with self.transaction() as conn:
            conversation_id = conversation_id_of(conn, node_id)
            if new_parent_id is not None:
                if conversation_id_of(conn, new_parent_id) != conversation_id:
                    raise UsageError("A node can move only within its conversation")
                if _is_above(conn, node_id, new_parent_id):
                    raise UsageError("A node cannot move below itself")
            return self._change("move", node_id, new_parent_id)

    def rename(self, conversation_id: str, title: str) -> Event | None:
        """Set the conversation's title. Raises NodeNotFound."""
        return self._change("rename", conversation_id, clean(title))

    def hide_conversation(self, conversation_id: str, hidden: bool = True) -> Event | None:
        """Hide the whole conversation, or show it again. Raises NodeNotFound."""
        return self._change("hide_conversation", conversation_id, hidden)

    def graft(self, conversation_id: str, rows: Sequence[NewNode]) -> list[Node]:
        """Add a branch as one change, its top node first. Raises NodeNotFound."""
        with self.transaction() as conn:
            nodes = insert_nodes(conn, conversation_id, rows)
            self.note_added("graft", nodes[0].id)
        return nodes

    def note_added(self, kind: AddedKind, node_id: str) -> Event:
        """Record the adding of that node as a change, which can be undone. Raises NodeNotFound."""
        with self.transaction() as conn:
            return _record(conn, kind, conversation_id_of(conn, node_id), node_id, True, False)

    def undo(self, conversation_id: str | None = None) -> Event | None:
        """Undo the last change of that conversation (None: of all); returns None if there is nothing to undo."""
        with self.transaction() as conn:
            event = _last_event(conn, "undone IS NULL", "id", conversation_id)
            if event is not None:
                _apply(conn, event, event.before)
                query = "UPDATE events SET undone = (SELECT coalesce(max(undone), 0) + 1 FROM events) WHERE id = ?"
                conn.execute(query, (event.id,))
                touch(conn, event.conversation_id)
            return event

    def redo(self, conversation_id: str | None = None) -> Event | None:
        """Redo the change undone last; returns None if nothing was undone since the last change."""
        with self.transaction() as conn:
            event = _last_event(conn, "undone IS NOT NULL", "undone", conversation_id)
            if event is not None:
                _apply(conn, event, event.after)
                conn.execute("UPDATE events SET undone = NULL WHERE id = ?", (event.id,))
                touch(conn, event.conversation_id)
            return event

    def _change(self, kind: EventKind, target_id: str, value: Any) -> Event | None:
        target = TARGETS[kind]
        on_node = target.table == "nodes"
        with self.transaction() as conn:
            owner = conversation_id_of(conn, target_id) if on_node else read_conversation(conn, target_id).id
            (before,) = conn.execute(
                f"SELECT {target.column} FROM {target.table} WHERE id = ?", (target_id,)
            ).fetchone()
            before = bool(before) if target.column in FLAGS else before
            if before == value:
                return None
            event = _record(conn, kind, owner, target_id if on_node else None, before, value)
            _apply(conn, event, value)
            return event


def _record(
    conn: sqlite3.Connection,
    kind: EventKind,
    conversation_id: str,
    node_id: str | None,
    before: Any,
    after: Any,
) -> Event:
    """Write an event and delete the undone events of its conversation."""
    now = time.time()
    conn.execute("DELETE FROM events WHERE conversation_id = ? AND undone IS NOT NULL", (conversation_id,))
    cursor = conn.execute(
        "INSERT INTO events (conversation_id, kind, node_id, before, after, created_at) VALUES (?, ?, ?, ?, ?, ?)",
        (conversation_id, kind, node_id, dump_json(before), dump_json(after), now),
    )
    assert cursor.lastrowid is not None, "an inserted event has no row id"
    touch(conn, conversation_id, now)
    return Event(cursor.lastrowid, conversation_id, kind, node_id, before, after, now)


def _last_event(conn: sqlite3.Connection, condition: str, order: str, conversation_id: str | None) -> Event | None:
    query = f"SELECT {EVENT_COLUMNS} FROM events WHERE {condition}"
    parameters: SqlRow = ()
    if conversation_id is not None:
        query, parameters = query + " AND conversation_id = ?", (conversation_id,)
    row = conn.execute(f"{query} ORDER BY {order} DESC LIMIT 1", parameters).fetchone()
    if row is None:
        return None
    event_id, conversation, kind, node_id, before, after, created_at = row
    return Event(event_id, conversation, kind, node_id, json.loads(before), json.loads(after), created_at)


def _is_above(conn: sqlite3.Connection, ancestor_id: str, node_id: str) -> bool:
    """Whether `ancestor_id` is the node itself or above it."""
    # UNION, not UNION ALL: the walk then ends on a damaged tree with a cycle, too.
    query = (
        "WITH RECURSIVE above(id) AS (SELECT ? UNION SELECT n.parent_id FROM above JOIN nodes n ON n.id = above.id"
        " WHERE n.parent_id IS NOT NULL) SELECT 1 FROM above WHERE id = ?"
    )
    return conn.execute(query, (node_id, ancestor_id)).fetchone() is not None


def _apply(conn: sqlite3.Connection, event: Event, value: Any) -> None:
    """Write `value` to the column that the event changes."""
    table, column = TARGETS[event.kind]
    target_id = event.node_id if table == "nodes" else event.conversation_id
    if conn.execute(f"UPDATE {table} SET {column} = ? WHERE id = ?", (value, target_id)).rowcount == 0:
        raise NodeNotFound(f"{short_id(target_id or '')} does not exist any more, so its change cannot be undone")
