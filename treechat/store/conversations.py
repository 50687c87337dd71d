"""Conversations: made, listed, opened. Opening repairs: a conversation always opens."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from treechat.errors import NodeNotFound, StoreError
from treechat.store.codec import clean, dump_json, load_mapping
from treechat.store.connection import Connection, Row
from treechat.store.ids import new_id, short_id
from treechat.store.values import ConversationInfo
from treechat.tree import Conversation, Node, Tree

NODE_COLUMNS = "id, parent_id, role, status, created_at, preview, label, bookmarked, hidden"
CONVERSATION_COLUMNS = "id, title, created_at, updated_at, current_id, meta"


def node_from(row: Row) -> Node:
    """The node of a row of `NODE_COLUMNS`."""
    node_id, parent_id, role, status, created_at, preview, label, bookmarked, hidden = row
    return Node(node_id, parent_id, role, status, created_at, preview, label, bool(bookmarked), bool(hidden))


def conversation_from(row: Row) -> Conversation:
    """The conversation of a row of `CONVERSATION_COLUMNS`."""
    conversation_id, title, created_at, updated_at, current_id, meta = row
    return Conversation(conversation_id, title, created_at, updated_at, current_id, load_mapping(meta))


UNFINISHED = 2
"""What stands under `hidden` for a conversation, or a node, that an import has not written to its end yet."""


class Conversations(Connection):
    """The part of the store that knows conversations."""

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
        """A new, empty conversation. `source` and `source_id` say where an imported one came from.

        is_unfinished: out of sight until `finish_import`, for one that is written in several transactions.
        """
        created_at = time.time() if created_at is None else created_at
        updated_at = created_at if updated_at is None else updated_at
        conversation = Conversation(id or new_id(), clean(title), created_at, updated_at, None, dict(meta or {}))
        origin = tuple(None if value is None else clean(value) for value in (source, source_id))
        with self._writing() as conn:
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
        row = self._one(f"SELECT {CONVERSATION_COLUMNS} FROM conversations WHERE id = ?", (clean(conversation_id),))
        if row is None:
            raise NodeNotFound(f"There is no conversation {short_id(conversation_id)}", "`treechat ls` lists them")
        return conversation_from(row)

    def visible_conversation(self, conversation_id: str) -> Conversation | None:
        """The conversation of that id; None where there is none, or it is hidden."""
        query = f"SELECT {CONVERSATION_COLUMNS} FROM conversations WHERE id = ? AND NOT hidden"
        row = self._one(query, (clean(conversation_id),))
        return None if row is None else conversation_from(row)

    def find_source(self, source: str, source_id: str) -> Conversation | None:
        """The visible conversation that was imported from there, so that an import can be repeated."""
        row = self._one(
            f"SELECT {CONVERSATION_COLUMNS} FROM conversations"
            " WHERE source = ? AND source_id = ? AND NOT hidden ORDER BY seq DESC LIMIT 1",
            (clean(source), clean(source_id)),
        )
        return None if row is None else conversation_from(row)

    def source_of(self, conversation_id: str) -> tuple[str, str] | None:
        """Where the conversation was imported from, as `find_source` takes it; None where it was made here."""
        query = "SELECT source, source_id FROM conversations WHERE id = ? AND source_id IS NOT NULL"
        row = self._one(query, (conversation_id,))
        return None if row is None else (str(row[0]), str(row[1]))

    def titles(self) -> list[tuple[str, str]]:
        """Ids and titles of the visible conversations, the last changed first; no node is read."""
        query = "SELECT id, title FROM conversations WHERE NOT hidden ORDER BY updated_at DESC, seq DESC"
        return [(row[0], row[1]) for row in self._all(query)]

    def conversations(self, limit: int | None = None, ids: Collection[str] | None = None) -> list[ConversationInfo]:
        """Visible conversations, the last changed first. ids: only these; each costs a look at its nodes."""
        query = (
            "SELECT id, title, created_at, updated_at, current_id,"
            " EXISTS (SELECT 1 FROM nodes WHERE conversation_id = c.id AND hidden) FROM conversations c"
            " WHERE NOT hidden {} ORDER BY updated_at DESC, seq DESC LIMIT ?"
        )
        num = -1 if limit is None else limit
        if ids is None:
            rows = self._all(query.format(""), (num,))
        else:
            rows = [row for i in ids for row in self._all(query.format("AND id = ?"), (i, num))]
        counts = self._counts(None if limit is None and ids is None else [row[0] for row in rows])
        infos = []
        for conversation_id, title, created_at, updated_at, current_id, any_hidden in rows:
            num_nodes, num_forks = counts.get(conversation_id, (0, 0))
            if any_hidden:
                # What lies below a hidden node is hidden too, which only a walk can tell.
                num_nodes, num_forks = self._visible_counts(conversation_id)
            infos.append(
                ConversationInfo(conversation_id, title, num_nodes, num_forks, created_at, updated_at, current_id)
            )
        return infos

    def _counts(self, conversation_ids: Sequence[str] | None) -> dict[str, tuple[int, int]]:
        """Nodes and forks per conversation (of all for None), as if nothing were hidden."""
        query = (
            "SELECT conversation_id, sum(n), sum(n > 1 AND parent_id IS NOT NULL) FROM"
            " (SELECT conversation_id, parent_id, count(*) AS n FROM nodes {} GROUP BY conversation_id, parent_id)"
            " GROUP BY conversation_id"
        )
        if conversation_ids is None:
            rows = self._all(query.format(""))
        else:
            rows = [row for i in conversation_ids for row in self._all(query.format("WHERE conversation_id = ?"), (i,))]
        return {conversation_id: (num_nodes, num_forks) for conversation_id, num_nodes, num_forks in rows}

    def _visible_counts(self, conversation_id: str) -> tuple[int, int]:
        tree, _ = repaired_tree(self._nodes(conversation_id))
        visible = list(tree.walk())
        return len(visible), sum(tree.is_fork(node_id) for node_id in visible)

    def _nodes(self, conversation_id: str) -> list[Node]:
        rows = self._all(f"SELECT {NODE_COLUMNS} FROM nodes WHERE conversation_id = ? ORDER BY seq", (conversation_id,))
        return [node_from(row) for row in rows]

    def _hidden_ids(self, conversation_id: str) -> set[str]:
        """Ids of the hidden nodes and of all below them."""
        # UNION, not UNION ALL: it ends on a damaged tree with a cycle too.
        query = (
            "WITH RECURSIVE below(id) AS (SELECT id FROM nodes WHERE conversation_id = ?1 AND hidden"
            " UNION SELECT n.id FROM below JOIN nodes n ON n.conversation_id = ?1 AND n.parent_id = below.id)"
            " SELECT id FROM below"
        )
        return {node_id for (node_id,) in self._all(query, (conversation_id,))}

    def load_tree(self, conversation_id: str) -> Tree:
        """The structure with its previews; no text is read. Children are in the order of their creation.

        What is broken is mended in the tree that is returned, and noted in `repairs`; the rows stay as they are, but
        for the conversation's `current_id`, which is led to a visible node if it has none. Raises NodeNotFound.
        """
        with self._reading():
            conversation = self.conversation(conversation_id)
            tree, notes = repaired_tree(self._nodes(conversation.id))
            current_id = visible_current(tree, conversation.current_id)
            if conversation.current_id is not None and conversation.current_id not in tree:
                notes.append(f"{short_id(conversation.current_id)} was current and is gone")
            self.repairs.extend(f"conversation {short_id(conversation.id)}: {note}" for note in notes)
            if current_id != conversation.current_id:
                # A file that can only be read opens all the same.
                with suppress(StoreError):
                    self.set_current(conversation.id, current_id)
        return tree

    def set_current(self, conversation_id: str, node_id: str | None) -> None:
        """Remember the last current node: where the conversation opens next, and what `@` means."""
        with self._writing() as conn:
            conn.execute("UPDATE conversations SET current_id = ? WHERE id = ?", (node_id, conversation_id))

    def _touch(self, conversation_id: str, at: float | None = None) -> None:
        """Note a change: the conversation moves up in the list."""
        with self._writing() as conn:
            conn.execute(
                "UPDATE conversations SET updated_at = max(updated_at, ?) WHERE id = ?",
                (time.time() if at is None else at, conversation_id),
            )


def visible_current(tree: Tree, current_id: str | None) -> str | None:
    """The nearest visible node to `current_id` on its path; without one the last leaf; None in an empty tree."""
    if current_id in tree:
        visible: str | None = None
        for node_id in tree.path(current_id):
            if tree[node_id].hidden:
                break
            visible = node_id
        if visible is not None:
            return visible
    return tree.leaf(tree.roots[-1]) if tree.roots else None


def repaired_tree(nodes: Sequence[Node]) -> tuple[Tree, list[str]]:
    """The tree of these nodes. A node whose parent is missing becomes a root, and so does one node of a cycle."""
    parents = {node.id: node.parent_id for node in nodes}
    notes = []
    for node in nodes:
        if node.parent_id is not None and node.parent_id not in parents:
            parents[node.id] = None
            notes.append(f"{short_id(node.id)} lost its parent and became a root")
    safe: set[str] = set()
    for node in nodes:
        parent_id = parents[node.id]
        if parent_id is None or parent_id in safe:
            safe.add(node.id)
            continue
        walked: dict[str, None] = {}
        current: str | None = node.id
        while current is not None and current not in safe and current not in walked:
            walked[current] = None
            current = parents[current]
        if current is not None and current in walked:
            # `current` is where the walk came round; the node it began at may only hang from the cycle.
            parents[current] = None
            notes.append(f"{short_id(current)} was its own ancestor and became a root")
        safe.update(walked)
    return Tree([n if parents[n.id] == n.parent_id else replace(n, parent_id=parents[n.id]) for n in nodes]), notes
