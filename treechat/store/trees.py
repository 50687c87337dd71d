"""The structure of a conversation as its rows hold it, and the repair of damaged structure."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from treechat.store.connection import SqlRow
from treechat.store.values import short_id
from treechat.tree import Node, Tree

NODE_COLUMNS = "id, parent_id, role, status, created_at, preview, label, bookmarked, hidden"


def node_from(row: SqlRow) -> Node:
    """The node of a row of `NODE_COLUMNS`."""
    node_id, parent_id, role, status, created_at, preview, label, bookmarked, hidden = row
    return Node(node_id, parent_id, role, status, created_at, preview, label, bool(bookmarked), bool(hidden))


def read_nodes(conn: sqlite3.Connection, conversation_id: str) -> list[Node]:
    """All nodes of the conversation, hidden ones included, in the order of their creation."""
    query = f"SELECT {NODE_COLUMNS} FROM nodes WHERE conversation_id = ? ORDER BY seq"
    return [node_from(row) for row in conn.execute(query, (conversation_id,)).fetchall()]


def hidden_ids(conn: sqlite3.Connection, conversation_id: str) -> set[str]:
    """Ids of the hidden nodes and of all nodes below them."""
    # UNION, not UNION ALL: the walk then ends on a damaged tree with a cycle, too.
    query = (
        "WITH RECURSIVE below(id) AS (SELECT id FROM nodes WHERE conversation_id = ?1 AND hidden"
        " UNION SELECT n.id FROM below JOIN nodes n ON n.conversation_id = ?1 AND n.parent_id = below.id)"
        " SELECT id FROM below"
    )
    return {node_id for (node_id,) in conn.execute(query, (conversation_id,)).fetchall()}


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
    """The tree of these nodes, and a note for each repair.

    A node with a missing parent becomes a root, and so does one node of each cycle.
    """
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
            # The walk returned to `current`, so `current` is in the cycle; its first node may only hang below it.
            parents[current] = None
            notes.append(f"{short_id(current)} was its own ancestor and became a root")
        safe.update(walked)
    return Tree([n if parents[n.id] == n.parent_id else replace(n, parent_id=parents[n.id]) for n in nodes]), notes
