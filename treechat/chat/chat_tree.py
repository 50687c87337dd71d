"""Going about a conversation's tree and changing its structure; nothing here needs a model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from treechat.store import Event, Store
from treechat.tree import Conversation, Node, Role, Tree, Turn, preview_of

if TYPE_CHECKING:
    from treechat.chat.reply import Reply

_MAX_TEXTS = 2_000
"""Texts held in memory; beyond that the oldest are read from the store again."""

_MOVES_KEY = "left"
_MAX_MOVES = 50
"""Key of the conversation's meta, and how many steps that took the current node out of sight it remembers."""


class ChatTree:
    """A conversation's tree in one window, and its current node. Every change can be undone."""

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
        """The nodes from the root to the current one."""
        return [self.tree[node_id] for node_id in self.tree.path(self.current_id)]

    def jump(self, node_id: str) -> None:
        """Make a node current, here and for the next time that this conversation is opened."""
        assert node_id in self.tree, f"node {node_id} is not in conversation {self.conversation_id}"
        self.current_id = node_id
        if self.conversation is not None:
            self.store.set_current(self.conversation.id, node_id)

    def text(self, node_id: str) -> str:
        """The whole text of a node, with what has come so far of a reply."""
        return self.texts([node_id])[node_id]

    def texts(self, node_ids: Iterable[str]) -> dict[str, str]:
        """`text` of several nodes, in one query where they are not in memory."""
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
        """What an import kept of a message beside its text: thoughts, calls, results, each with a `type`."""
        parts = self.store.metas([node_id]).get(node_id, {}).get("parts")
        return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []

    def turn(self, node_id: str) -> Turn | None:
        """Where a reply came from; None for what nobody generated."""
        if node_id in self.replies:
            return self.replies[node_id].turn
        if node_id not in self._turns:
            self._turns[node_id] = self.store.turn(node_id)
        return self._turns[node_id]

    def forget(self, node_id: str) -> None:
        """The node's text or turn changed in the store: read it again when it is needed."""
        self.loaded_texts.pop(node_id, None)
        self._turns.pop(node_id, None)

    # Growing

    def add(self, role: Role, text: str, parent_id: str | None) -> Node:
        """Write a finished node below `parent_id`; it becomes current."""
        if self.conversation is None:
            self.title = self.title or preview_of(text)[:60]
            self.conversation = self.store.create_conversation(self.title)
        node = self.store.add_node(self.conversation.id, parent_id, role, text)
        self.tree.add(node)
        self.jump(node.id)
        return node

    def start_reply(self, parent_id: str | None, turn: Turn) -> Node:
        """Write a reply's row before its first token."""
        assert self.conversation is not None, "a reply needs a message before it"
        node = self.store.start_reply(self.conversation.id, parent_id, turn)
        self.tree.add(node)
        return node

    # Changing, with undo

    def hide(self, node_id: str) -> str | None:
        """Take a subtree out of sight; returns the node that is current then."""
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
        """Name a node, or None to take its name away."""
        self.store.set_label(node_id, label)
        self.tree.change(node_id, label=label)

    def set_bookmark(self, node_id: str, bookmarked: bool) -> None:
        """Mark a node to come back to."""
        self.store.set_bookmark(node_id, bookmarked)
        self.tree.change(node_id, bookmarked=bookmarked)

    def rename(self, title: str) -> None:
        """Give the conversation another title."""
        self.title = title
        if self.conversation is not None:
            self.store.rename(self.conversation.id, title)
            self.conversation = self.store.conversation(self.conversation.id)

    def undo(self) -> Event | None:
        """Take the last change of structure back; None where there is none."""
        return self._after_event(self.store.undo(self.conversation.id)) if self.conversation else None

    def redo(self) -> Event | None:
        """Do again what was undone last; None where there is nothing."""
        return self._after_event(self.store.redo(self.conversation.id)) if self.conversation else None

    def _after_event(self, event: Event | None) -> Event | None:
        """A step that takes the current node out of sight is remembered; the one back goes there again, unless the user
        has gone elsewhere since."""
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
        """Steps that took the current node out of sight, with where from and where to: for the step back, in later
        starts too."""
        assert self.conversation is not None
        kept = dict(list(known.items())[-_MAX_MOVES:])
        if kept != _moves_of(self.conversation):
            self.store.set_meta(self.conversation.id, _MOVES_KEY, kept or None)
            self.conversation = self.store.conversation(self.conversation.id)

    def reload(self) -> bool:
        """Take over what another window wrote since the last call; whether there was anything."""
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
        # A layout is kept by version: the new tree must not be taken for the old one.
        tree.version += self.tree.version + 1
        self.tree = tree
        self.loaded_texts.clear()
        self._turns.clear()
        self._repair_current()

    def _repair_current(self) -> None:
        """Where the current node is gone or hidden: the nearest visible one above it, else the newest leaf."""
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
    """By event id, two node ids or None; what somebody else wrote there is left out."""
    known = conversation.meta.get(_MOVES_KEY)
    items = known.items() if isinstance(known, dict) else ()
    return {key: tuple(pair) for key, pair in items if isinstance(pair, list) and len(pair) == 2}
