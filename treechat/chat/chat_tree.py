"""The tree of an open conversation: its current node, texts and changes. Needs no model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from treechat.store import Event, Store
from treechat.tree import Conversation, Node, Role, Tree, Turn, preview_of

if TYPE_CHECKING:
    from treechat.chat.reply import Reply

_MAX_TEXTS = 2_000
"""Texts kept in memory. The oldest are dropped first and read from the store again."""

_MOVES_KEY = "left"
_MAX_MOVES = 50
"""Key in the conversation's meta, and the number of events kept there: those that hid the current node."""


class ChatTree:
    """The tree of a conversation in one window, and its current node. Every change of structure can be undone."""

    def __init__(self, store: Store, conversation_id: str | None) -> None:
        self.store = store
        self.title = ""
        self.conversation: Conversation | None = None
        self.tree = Tree()
        self.current_id: str | None = None
        self.replies: dict[str, Reply] = {}
        self.loaded_texts: dict[str, str] = {}
        self._turns: dict[str, Turn | None] = {}
        self._version = store.data_version()
        if conversation_id is not None:
            self.conversation = store.conversation(conversation_id)
            self.title = self.conversation.title
            self.tree = store.load_tree(conversation_id)
            self.current_id = self.conversation.current_id
            self._repair_current()

    @property
    def conversation_id(self) -> str | None:
        """None until the first node is written."""
        return self.conversation.id if self.conversation else None

    @property
    def streaming(self) -> set[str]:
        """Ids of the nodes that are being generated in this window."""
        return set(self.replies)

    def path(self) -> list[Node]:
        """Return the nodes from the root to the current one."""
        return [self.tree[node_id] for node_id in self.tree.path(self.current_id)]

    def jump(self, node_id: str) -> None:
        """Make a node current, in this window and when the conversation is opened again."""
        assert node_id in self.tree, f"node {node_id} is not in conversation {self.conversation_id}"
        self.current_id = node_id
        if self.conversation is not None:
            self.store.set_current(self.conversation.id, node_id)

    def text(self, node_id: str) -> str:
        """Return the text of a node; of a growing reply, its text so far."""
        return self.texts([node_id])[node_id]

    def texts(self, node_ids: Iterable[str]) -> dict[str, str]:
        """Return `text` of several nodes, with one query for those not in memory."""
        wanted = list(node_ids)
        found = {i: self.replies[i].text for i in wanted if i in self.replies}
        missing = [i for i in wanted if i not in found and i not in self.loaded_texts]
        if missing:
            self.loaded_texts.update(self.store.texts(missing))
        found.update((i, self.loaded_texts.get(i, "")) for i in wanted if i not in found)
        while len(self.loaded_texts) > _MAX_TEXTS:
            self.loaded_texts.pop(next(iter(self.loaded_texts)))
        return found

    def parts(self, node_id: str) -> list[dict[str, Any]]:
        """Return what an import stored of a message beside its text: thoughts, calls, results, each with a `type`."""
        parts = self.store.metas([node_id]).get(node_id, {}).get("parts")
        return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []

    def turn(self, node_id: str) -> Turn | None:
        """Return the provenance of a reply; None if the node was not generated."""
        if node_id in self.replies:
            return self.replies[node_id].turn
        if node_id not in self._turns:
            self._turns[node_id] = self.store.turn(node_id)
        return self._turns[node_id]

    def forget(self, node_id: str) -> None:
        """Drop the cached text and turn of a node, since the store has newer ones."""
        self.loaded_texts.pop(node_id, None)
        self._turns.pop(node_id, None)

    # Growing

    def add(self, role: Role, text: str, parent_id: str | None) -> Node:
        """Store a complete node below `parent_id` and make it current."""
        if self.conversation is None:
            self.title = self.title or preview_of(text)[:60]
            self.conversation = self.store.create_conversation(self.title)
        node = self.store.add_node(self.conversation.id, parent_id, role, text)
        self.tree.add(node)
        self.jump(node.id)
        return node

    def start_reply(self, parent_id: str | None, turn: Turn) -> Node:
        """Store a reply's node before its first token."""
        assert self.conversation is not None, "a reply needs a message before it"
        node = self.store.start_reply(self.conversation.id, parent_id, turn)
        self.tree.add(node)
        return node

    # Changing, with undo

    def hide(self, node_id: str) -> str | None:
        """Hide a subtree; returns the id of the node that is current afterwards."""
        before = self.current_id
        event = self.store.hide(node_id)
        self.tree.change(node_id, hidden=True)
        self._repair_current()
        if event is not None and self.current_id != before and self.conversation is not None:
            known = _moves_of(self.conversation)
            known.pop(str(event.id), None)
            self._store_moves({**known, str(event.id): (before, self.current_id)})
        return self.current_id

    def set_label(self, node_id: str, label: str | None) -> None:
        """Set a node's label; None removes it."""
        self.store.set_label(node_id, label)
        self.tree.change(node_id, label=label)

    def set_bookmark(self, node_id: str, bookmarked: bool) -> None:
        """Set or remove a node's bookmark."""
        self.store.set_bookmark(node_id, bookmarked)
        self.tree.change(node_id, bookmarked=bookmarked)

    def rename(self, title: str) -> None:
        """Change the conversation's title."""
        self.title = title
        if self.conversation is not None:
            self.store.rename(self.conversation.id, title)
            self.conversation = self.store.conversation(self.conversation.id)

    def undo(self) -> Event | None:
        """Undo the last change of structure; None if there is none."""
        return self._after_event(self.store.undo(self.conversation.id)) if self.conversation else None

    def redo(self) -> Event | None:
        """Repeat the change that was undone last; None if there is none."""
        return self._after_event(self.store.redo(self.conversation.id)) if self.conversation else None

    def _after_event(self, event: Event | None) -> Event | None:
        """Reload after an undo or redo.

        If the event hides the current node, store the move of the current node. The opposite event makes that node
        current again, unless the user made another node current in between.
        """
        if event is None:
            return None
        before = self.current_id
        self._load()
        assert self.conversation is not None
        known = _moves_of(self.conversation)
        left, arrived = known.pop(str(event.id), (None, None))
        is_back = isinstance(left, str) and arrived == before and left in self.tree
        if is_back and not self.tree.is_hidden(left):
            self.jump(left)
        elif self.current_id != before:
            known[str(event.id)] = before, self.current_id
        self._store_moves(known)
        return event

    def _store_moves(self, known: dict[str, Any]) -> None:
        """Store the moves of the current node by event id. The meta keeps them for later starts."""
        assert self.conversation is not None
        moves = dict(list(known.items())[-_MAX_MOVES:])
        if moves != _moves_of(self.conversation):
            self.store.set_meta(self.conversation.id, _MOVES_KEY, moves or None)
            self.conversation = self.store.conversation(self.conversation.id)

    def reload(self) -> bool:
        """Read the changes of other windows since the last call; returns whether there were any."""
        version = self.store.data_version()
        if self.conversation is None or version == self._version:
            return False
        self._version = version
        self._load()
        return True

    def _load(self) -> None:
        assert self.conversation is not None
        self.conversation = self.store.conversation(self.conversation.id)
        self.title = self.conversation.title
        tree = self.store.load_tree(self.conversation.id)
        # Layouts are cached by version, so the new tree needs a higher one.
        tree.version += self.tree.version + 1
        self.tree = tree
        self.loaded_texts.clear()
        self._turns.clear()
        self._repair_current()

    def _repair_current(self) -> None:
        """If the current node is gone or hidden, take the nearest visible ancestor, else the newest leaf."""
        node_id = self.current_id if self.current_id in self.tree else None
        while node_id is not None and self.tree.is_hidden(node_id):
            node_id = self.tree[node_id].parent_id
        if node_id is None and self.tree.roots:
            node_id = self.tree.leaf(self.tree.roots[-1])
        if node_id != self.current_id:
            self.current_id = node_id
            if node_id is not None and self.conversation is not None:
                self.store.set_current(self.conversation.id, node_id)


def _moves_of(conversation: Conversation) -> dict[str, Any]:
    """Return the moves by event id, as two node ids or None each. Values of another form are ignored."""
    known = conversation.meta.get(_MOVES_KEY)
    items = known.items() if isinstance(known, dict) else ()
    return {key: tuple(pair) for key, pair in items if isinstance(pair, list) and len(pair) == 2}
