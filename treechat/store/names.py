"""Names of nodes: short id, `@` (current), a label, and `~N` for N steps up."""

from __future__ import annotations

import re
from collections.abc import Iterable

from treechat.errors import NodeNotFound
from treechat.store.codec import clean
from treechat.store.conversations import CONVERSATION_COLUMNS, conversation_from
from treechat.store.ids import short_id
from treechat.store.nodes import Nodes
from treechat.store.spans import chunks
from treechat.store.values import Resolved
from treechat.tree import Conversation

STEPS = re.compile(r"(?P<base>.+?)~(?P<steps>\d*)", re.DOTALL)
HINT = "A node is named by the beginning of its id, @ (current), @~2 (two up from there) or a label"
MAX_NAMED = 5
"""How many candidates the message about an ambiguous name lists."""


class Names(Nodes):
    """The part of the store that knows what a person calls a node."""

    def resolve(self, name: str, conversation_id: str | None = None) -> Resolved:
        """The visible node that `name` stands for: a label, `@`, an id or the beginning of one, each with `~N`.

        `@` is the current node of that conversation, else of the one changed last. A whole id finds hidden nodes too.
        Raises NodeNotFound where none answers, or several.
        """
        name = clean(name).strip()
        if found := self._labelled(name, conversation_id):
            return found
        steps = 0
        if match := STEPS.fullmatch(name):
            name, steps = match["base"], int(match["steps"] or 1)
        found = self._current(conversation_id) if name == "@" else self._labelled(name, conversation_id)
        return self._up(found or self._by_id(name, conversation_id), steps)

    def conversations_of(self, node_ids: Iterable[str]) -> dict[str, str]:
        """`conversation_of` of several nodes; ids that name no node are left out."""
        found: dict[str, str] = {}
        with self._reading() as conn:
            for piece, marks in chunks(node_ids):
                found.update(conn.execute(f"SELECT id, conversation_id FROM nodes WHERE id IN ({marks})", piece))
        return found

    def resolve_conversation(self, name: str) -> Conversation:
        """The conversation whose id begins with `name`; for `@` the one changed last. Raises NodeNotFound."""
        name = clean(name).strip()
        query = f"SELECT {CONVERSATION_COLUMNS} FROM conversations"
        if name == "@":
            rows = self._all(f"{query} WHERE NOT hidden ORDER BY updated_at DESC, seq DESC LIMIT 1")
            if not rows:
                raise NodeNotFound("There is no conversation yet")
        else:
            rows = self._all(f"{query} WHERE id = ?", (name,)) or self._all(
                f"{query} WHERE substr(id, 1, ?) = ? AND NOT hidden LIMIT ?",
                (len(name), name.lower(), MAX_NAMED + 1),
            )
        if not name or not rows:
            raise NodeNotFound(f"No conversation is called {name!r}", "`treechat ls` lists them")
        _require_one(name, [row[0] for row in rows])
        return conversation_from(rows[0])

    def _current(self, conversation_id: str | None) -> Resolved:
        conversation_id = conversation_id or self.resolve_conversation("@").id
        # Loading leads the cursor to a visible node.
        self.load_tree(conversation_id)
        current_id = self.conversation(conversation_id).current_id
        if current_id is None:
            raise NodeNotFound("The conversation is empty, it has no current node")
        return Resolved(self.node(current_id), conversation_id)

    def _labelled(self, label: str, conversation_id: str | None) -> Resolved | None:
        return self._visible_one(label, "n.label = ?", (label,), conversation_id)

    def _by_id(self, name: str, conversation_id: str | None) -> Resolved:
        row = self._one("SELECT conversation_id FROM nodes WHERE id = ?", (name,))
        if row is not None:
            return Resolved(self.node(name), row[0])
        # A range, unlike LIKE or substr, uses the index; "~" comes after every character of an id.
        prefix = name.lower()
        found = self._visible_one(name, "n.id >= ? AND n.id < ?", (prefix, prefix + "~"), conversation_id)
        if found is None or not prefix:
            raise NodeNotFound(f"No node is called {name!r}", HINT)
        return found

    def _visible_one(
        self, name: str, condition: str, parameters: tuple[str, ...], conversation_id: str | None
    ) -> Resolved | None:
        query = (
            "SELECT n.id, n.conversation_id FROM nodes n JOIN conversations c ON c.id = n.conversation_id"
            f" WHERE {condition} AND NOT c.hidden"
        )
        if conversation_id is not None:
            query, parameters = query + " AND c.id = ?", (*parameters, conversation_id)
        rows = self._all(f"{query} LIMIT 1000", parameters)
        hidden: set[str] = set()
        for conversation in {row[1] for row in rows}:
            hidden |= self._hidden_ids(conversation)
        visible = [row for row in rows if row[0] not in hidden]
        if not visible:
            return None
        _require_one(name, [row[0] for row in visible])
        return Resolved(self.node(visible[0][0]), visible[0][1])

    def _up(self, start: Resolved, steps: int) -> Resolved:
        node, seen = start.node, {start.node.id}
        for step in range(steps):
            # A damaged tree may go round.
            if node.parent_id is None or node.parent_id in seen:
                raise NodeNotFound(f"{short_id(start.node.id)} has only {step} nodes above it", HINT)
            node = self.node(node.parent_id)
            seen.add(node.id)
        return Resolved(node, start.conversation_id)


def _require_one(name: str, ids: list[str]) -> None:
    if len(ids) > 1:
        named = ", ".join(short_id(i) for i in ids[:MAX_NAMED]) + (", …" if len(ids) > MAX_NAMED else "")
        raise NodeNotFound(f"{name!r} may be any of {named}", "Write more of the id")
