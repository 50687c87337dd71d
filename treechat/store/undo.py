"""Changes of structure, and undo: every change is one event that holds what it changed, before and after.

The events of a conversation are a line with a cut: before it what was done, after it what was undone. A new change
drops what lies after the cut. Adding a node is no event: an added node is hidden, not undone. A branch that was copied
or replayed is one: undone, it is out of sight.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from treechat.errors import NodeNotFound, UsageError
from treechat.store.codec import clean, dump_json
from treechat.store.connection import Row
from treechat.store.ids import short_id
from treechat.store.nodes import Nodes
from treechat.store.values import AddedKind, Event, EventKind, NewNode
from treechat.tree import Node


class _Target(NamedTuple):
    """What an event changes: one column of one row."""

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
COLUMNS = "id, conversation_id, kind, node_id, before, after, created_at"


class Events(Nodes):
    """The part of the store that changes structure, each change undoable. A change to what is already so is none."""

    def hide(self, node_id: str, hidden: bool = True) -> Event | None:
        """Take the node and all below it out of sight, or bring them back. Raises NodeNotFound."""
        return self._change("hide", node_id, hidden)

    def set_label(self, node_id: str, label: str | None) -> Event | None:
        """Name the node; None or blank takes its name away. Raises NodeNotFound."""
        return self._change("label", node_id, clean(label).strip() or None if label is not None else None)

    def set_bookmark(self, node_id: str, bookmarked: bool) -> Event | None:
        """Mark the node, or unmark it. Raises NodeNotFound."""
        return self._change("bookmark", node_id, bookmarked)

    def move(self, node_id: str, new_parent_id: str | None) -> Event | None:
        """Hang the node, with all below it, under another of the same conversation (None makes it a root).

        Raises NodeNotFound, and UsageError where the new parent is the node itself, below it or elsewhere.
        """
        with self._writing():
            conversation_id = self.conversation_of(node_id)
            if new_parent_id is not None:
                if self.conversation_of(new_parent_id) != conversation_id:
                    raise UsageError("A node can only move within its conversation")
                if self._is_above(node_id, new_parent_id):
                    raise UsageError("A node cannot move below itself")
            return self._change("move", node_id, new_parent_id)

    def rename(self, conversation_id: str, title: str) -> Event | None:
        """Give the conversation another title. Raises NodeNotFound."""
        return self._change("rename", conversation_id, clean(title))

    def hide_conversation(self, conversation_id: str, hidden: bool = True) -> Event | None:
        """Delete the whole conversation from sight, or bring it back. Raises NodeNotFound."""
        return self._change("hide_conversation", conversation_id, hidden)

    def graft(self, conversation_id: str, rows: Sequence[NewNode]) -> list[Node]:
        """Add a branch, the top of it first, as one change. Raises NodeNotFound."""
        with self._writing():
            nodes = self.add_nodes(conversation_id, rows)
            self.note_added("graft", nodes[0].id)
        return nodes

    def note_added(self, kind: AddedKind, node_id: str) -> Event:
        """Make the adding of that node, with what comes below it, a change that can be undone. Raises NodeNotFound."""
        with self._writing() as conn:
            return self._record(conn, kind, self.conversation_of(node_id), node_id, True, False)

    def undo(self, conversation_id: str | None = None) -> Event | None:
        """Take back the last change, of that conversation or of all; None where there is nothing to undo."""
        with self._writing() as conn:
            event = self._last_event("undone IS NULL", "id", conversation_id)
            if event is not None:
                _apply(conn, event, event.before)
                query = "UPDATE events SET undone = (SELECT coalesce(max(undone), 0) + 1 FROM events) WHERE id = ?"
                conn.execute(query, (event.id,))
                self._touch(event.conversation_id)
            return event

    def redo(self, conversation_id: str | None = None) -> Event | None:
        """Do again what was undone last; None where nothing was undone since the last change."""
        with self._writing() as conn:
            event = self._last_event("undone IS NOT NULL", "undone", conversation_id)
            if event is not None:
                _apply(conn, event, event.after)
                conn.execute("UPDATE events SET undone = NULL WHERE id = ?", (event.id,))
                self._touch(event.conversation_id)
            return event

    def _change(self, kind: EventKind, target_id: str, value: Any) -> Event | None:
        target = TARGETS[kind]
        on_node = target.table == "nodes"
        with self._writing() as conn:
            conversation_id = self.conversation_of(target_id) if on_node else self.conversation(target_id).id
            (before,) = conn.execute(
                f"SELECT {target.column} FROM {target.table} WHERE id = ?", (target_id,)
            ).fetchone()
            before = bool(before) if target.column in FLAGS else before
            if before == value:
                return None
            event = self._record(conn, kind, conversation_id, target_id if on_node else None, before, value)
            _apply(conn, event, value)
            return event

    def _record(
        self, conn: sqlite3.Connection, kind: EventKind, conversation_id: str, node_id: str | None, *values: Any
    ) -> Event:
        """Write an event down, behind which nothing can be redone; values: before and after."""
        before, after = values
        now = time.time()
        conn.execute("DELETE FROM events WHERE conversation_id = ? AND undone IS NOT NULL", (conversation_id,))
        cursor = conn.execute(
            "INSERT INTO events (conversation_id, kind, node_id, before, after, created_at) VALUES (?, ?, ?, ?, ?, ?)",
            (conversation_id, kind, node_id, dump_json(before), dump_json(after), now),
        )
        assert cursor.lastrowid is not None, "an inserted event has no row id"
        self._touch(conversation_id, now)
        return Event(cursor.lastrowid, conversation_id, kind, node_id, before, after, now)

    def _last_event(self, condition: str, order: str, conversation_id: str | None) -> Event | None:
        query = f"SELECT {COLUMNS} FROM events WHERE {condition}"
        parameters: Row = ()
        if conversation_id is not None:
            query, parameters = query + " AND conversation_id = ?", (conversation_id,)
        row = self._one(f"{query} ORDER BY {order} DESC LIMIT 1", parameters)
        if row is None:
            return None
        event_id, conversation, kind, node_id, before, after, created_at = row
        return Event(event_id, conversation, kind, node_id, json.loads(before), json.loads(after), created_at)

    def _is_above(self, ancestor_id: str, node_id: str) -> bool:
        """Whether `ancestor_id` is the node itself or lies above it."""
        # UNION, not UNION ALL: it ends on a damaged tree with a cycle too.
        query = (
            "WITH RECURSIVE above(id) AS (SELECT ? UNION SELECT n.parent_id FROM above JOIN nodes n ON n.id = above.id"
            " WHERE n.parent_id IS NOT NULL) SELECT 1 FROM above WHERE id = ?"
        )
        return self._one(query, (node_id, ancestor_id)) is not None


def _apply(conn: sqlite3.Connection, event: Event, value: Any) -> None:
    """Set what the event changes to `value`."""
    table, column = TARGETS[event.kind]
    target_id = event.node_id if table == "nodes" else event.conversation_id
    if conn.execute(f"UPDATE {table} SET {column} = ? WHERE id = ?", (value, target_id)).rowcount == 0:
        raise NodeNotFound(f"{short_id(target_id or '')} is gone, its change cannot be undone")
