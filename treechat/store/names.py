"""Names of nodes: a short id, `@` (current) or a label, and `~N` for N steps up."""

from __future__ import annotations

import re
from collections.abc import Iterable

from treechat.errors import NodeNotFound
from treechat.store.codec import clean
from treechat.store.connection import Connection
from treechat.store.conversations import CONVERSATION_COLUMNS, conversation_from, open_tree, read_conversation
from treechat.store.nodes import read_node
from treechat.store.spans import chunks
from treechat.store.trees import hidden_ids
from treechat.store.values import NamedNode, short_id
from treechat.tree import Conversation

STEPS = re.compile(r"(?P<start>.+?)~(?P<steps>\d*)", re.DOTALL)
HINT = "The name of a node is the start of its id, @ (current), @~2 (two nodes above it) or a label"
MAX_NAMED = 5
"""The most candidates that the error for an ambiguous name lists."""


class Names(Connection):
    """Find nodes and conversations by name."""

    def resolve(self, name: str, conversation_id: str | None = None) -> NamedNode:
        """The visible node of that name.

        name: a label, `@`, or the beginning of an id, each optionally with `~N`. A whole id also finds a hidden node.
        conversation_id: search only this conversation; `@` is its current node. None: search all; `@` is the current
        node of the conversation changed last.

        Raises NodeNotFound if no node or several nodes have that name.
        """
        name = clean(name).strip()
        if found := self._by_label(name, conversation_id):
            return found
        steps = 0
        if match := STEPS.fullmatch(name):
            name, steps = match["start"], int(match["steps"] or 1)
        found = self._current_node(conversation_id) if name == "@" else self._by_label(name, conversation_id)
        return self._ancestor(found or self._by_id(name, conversation_id), steps)

    def conversations_of(self, node_ids: Iterable[str]) -> dict[str, str]:
        """`conversation_of` by node id, without the ids that name no node."""
        found: dict[str, str] = {}
        with self.reading() as conn:
            for chunk, marks in chunks(node_ids):
                found.update(conn.execute(f"SELECT id, conversation_id FROM nodes WHERE id IN ({marks})", chunk))
        return found

    def resolve_conversation(self, name: str) -> Conversation:
        """The conversation whose id begins with `name`; `@` is the one changed last. Raises NodeNotFound."""
        name = clean(name).strip()
        query = f"SELECT {CONVERSATION_COLUMNS} FROM conversations"
        if name == "@":
            rows = self.rows(f"{query} WHERE NOT hidden ORDER BY updated_at DESC, seq DESC LIMIT 1")
            if not rows:
                raise NodeNotFound("There are no conversations yet")
        else:
            rows = self.rows(f"{query} WHERE id = ?", (name,)) or self.rows(
                f"{query} WHERE substr(id, 1, ?) = ? AND NOT hidden LIMIT ?",
                (len(name), name.lower(), MAX_NAMED + 1),
            )
        if not name or not rows:
            raise NodeNotFound(f"There is no conversation {name!r}", "`treechat ls` lists them")
        _require_one(name, [row[0] for row in rows])
        return conversation_from(rows[0])

    def _current_node(self, conversation_id: str | None) -> NamedNode:
        conversation_id = conversation_id or self.resolve_conversation("@").id
        # Opening the tree sets a missing or hidden current node to a visible one.
        open_tree(self, conversation_id)
        with self.reading() as conn:
            current_id = read_conversation(conn, conversation_id).current_id
            if current_id is None:
                raise NodeNotFound("The conversation is empty and has no current node")
            return NamedNode(read_node(conn, current_id), conversation_id)

    def _by_label(self, label: str, conversation_id: str | None) -> NamedNode | None:
        return self._visible_one(label, "n.label = ?", (label,), conversation_id)

    def _by_id(self, name: str, conversation_id: str | None) -> NamedNode:
        row = self.row("SELECT conversation_id FROM nodes WHERE id = ?", (name,))
        if row is not None:
            return self._named(name, row[0])
        # Unlike LIKE or substr, a range uses the index; "~" sorts after every character of an id.
        prefix = name.lower()
        found = self._visible_one(name, "n.id >= ? AND n.id < ?", (prefix, prefix + "~"), conversation_id)
        if found is None or not prefix:
            raise NodeNotFound(f"There is no node {name!r}", HINT)
        return found

    def _visible_one(
        self, name: str, condition: str, parameters: tuple[str, ...], conversation_id: str | None
    ) -> NamedNode | None:
        query = (
            "SELECT n.id, n.conversation_id FROM nodes n JOIN conversations c ON c.id = n.conversation_id"
            f" WHERE {condition} AND NOT c.hidden"
        )
        if conversation_id is not None:
            query, parameters = query + " AND c.id = ?", (*parameters, conversation_id)
        rows = self.rows(f"{query} LIMIT 1000", parameters)
        hidden: set[str] = set()
        for conversation in {row[1] for row in rows}:
            with self.reading() as conn:
                hidden |= hidden_ids(conn, conversation)
        visible = [row for row in rows if row[0] not in hidden]
        if not visible:
            return None
        _require_one(name, [row[0] for row in visible])
        return self._named(*visible[0])

    def _named(self, node_id: str, conversation_id: str) -> NamedNode:
        with self.reading() as conn:
            return NamedNode(read_node(conn, node_id), conversation_id)

    def _ancestor(self, start: NamedNode, steps: int) -> NamedNode:
        node, seen = start.node, {start.node.id}
        with self.reading() as conn:
            for step in range(steps):
                # A damaged tree may have a cycle.
                if node.parent_id is None or node.parent_id in seen:
                    raise NodeNotFound(f"{short_id(start.node.id)} has only {step} nodes above it", HINT)
                node = read_node(conn, node.parent_id)
                seen.add(node.id)
        return NamedNode(node, start.conversation_id)


def _require_one(name: str, ids: list[str]) -> None:
    if len(ids) > 1:
        named = ", ".join(short_id(i) for i in ids[:MAX_NAMED]) + (", …" if len(ids) > MAX_NAMED else "")
        raise NodeNotFound(f"{name!r} matches several: {named}", "Type more of the id")
