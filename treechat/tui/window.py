"""The state of one window: the open conversation, the cursor and the view, and the methods that draw them.

`TreechatApp` adds the keys' actions (actions/) and the services (services/), which all work on this class.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from textual import on
from textual.app import App
from textual.css.query import NoMatches
from textual.notifications import Notification
from textual.screen import Screen

from treechat.chat.session import Chat
from treechat.chat.settings import Settings
from treechat.config import Config
from treechat.errors import TreechatError
from treechat.store import Store
from treechat.tree import Node
from treechat.tui.key_queue import KeyQueue
from treechat.tui.safe_text import escape_controls
from treechat.tui.transcript.minimap import Minimap
from treechat.tui.transcript.view import Anchor, Transcript
from treechat.tui.tree.pane import TreePane
from treechat.tui.widgets.composer import Composer
from treechat.tui.widgets.status import StatusLine, TopLine

if TYPE_CHECKING:
    from treechat.chat.model.chat_model import ChatModel
    from treechat.tui.services.import_watch import ImportWatch
    from treechat.tui.services.kv_watch import KvWatch
    from treechat.tui.services.model_choice import ModelChoice
    from treechat.tui.services.model_loader import ModelLoader
    from treechat.tui.services.replies import Replies

EMPTY = (
    "A new conversation.\n\nWrite below and press enter.\nctrl+o opens an earlier one, f1 lists all keys.\n"
    "ctrl+p, then “tour”, shows you around."
)
EMPTY_TEXT = "A new text.\n\nThis model has no chat template: it continues your text.\nf1 lists all keys."

Answer = TypeVar("Answer")

NOTHING_LOST = "Nothing was lost."

SAY_S = 4.0
"""Seconds that the text of `say` is shown."""


class Window(App[None]):
    """One open conversation, its widgets, and its services.

    The *current* node is the node that the next message follows. The *cursor* is the node that the keys act on. The
    *view* is the last node of the path in the transcript; the cursor is on that path.

    config: the values of the configuration file, with presets saved since.
    settings: the defaults of all conversations.
    store: the open database.
    chat: the open conversation. It has a model when one is loaded.
    cursor_id, view_id: the cursor and the view; None in an empty conversation.
    editing_id: the message that sending makes a sibling of; None for a new message.
    reply_count: the number of replies that the next regenerate makes.
    jumps: the nodes that were current before the last jumps, the latest at the end.
    visited: by node id (None: above the roots), the child that was visited last.
    replies, kv_watch, imports, models, model_choice: the services, created by `TreechatApp`.
    """

    CSS_PATH = "treechat.tcss"
    TITLE = "treechat"

    replies: Replies
    kv_watch: KvWatch
    imports: ImportWatch
    models: ModelLoader
    model_choice: ModelChoice

    def __init__(self, store_path: Path | None, config: Config, conversation_id: str | None) -> None:
        """Open the database and a conversation of it.

        store_path: None keeps everything in memory.
        config: the values of the configuration file.
        conversation_id: None opens the latest conversation, or a new one if there is none.
        Raises StoreError if the database cannot be opened, and NodeNotFound.
        """
        super().__init__()
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]
        self.config = config
        self.settings = Settings.from_config(config)
        self.store = Store.open(store_path)
        if conversation_id is None and (latest := self.store.conversations(limit=1)):
            conversation_id = latest[0].id
        self.chat = self._open_chat(conversation_id, None)
        self.cursor_id: str | None = self.chat.current_id
        self.view_id: str | None = self.chat.current_id
        self.editing_id: str | None = None
        self.reply_count = 1
        self.jumps: list[str] = []
        self.visited: dict[str | None, str] = {}
        self.key_queue = KeyQueue(self, super().on_event)

    # The conversation

    def _open_chat(self, conversation_id: str | None, model: ChatModel | None) -> Chat:
        if conversation_id is None:
            return Chat.new(self.store, self.settings, model)
        return Chat.open(self.store, conversation_id, self.settings, model)

    def switch_to(self, conversation_id: str | None) -> None:
        """Show another conversation, None for a new one. Replies in this one continue."""
        self.chat = self._open_chat(conversation_id, self.chat.model)
        self.jumps.clear()
        self.show_conversation()
        self.model_choice.tell_other_model()

    @property
    def cursor(self) -> Node | None:
        return self.chat.tree.nodes.get(self.cursor_id) if self.cursor_id else None

    @property
    def branch_id(self) -> str | None:
        """The first node of the branch under the cursor: a row's first node in the tree, else the message itself."""
        row = self.tree_pane.row
        return row.head_id if self.in_tree and row is not None and not row.dead_end_ids else self.cursor_id

    def leaf_of(self, node_id: str) -> str:
        """The leaf below a node, along the children visited last; along the newest child if none was visited."""
        tree = self.chat.tree
        while True:
            child_id = tree.only_child(node_id)
            if child_id is None:
                children = tree.children(node_id)
                if not children:
                    return node_id
                last = self.visited.get(node_id)
                child_id = last if last in children else children[-1]
            node_id = child_id

    # Widgets

    @property
    def main_screen(self) -> Screen[object]:
        """The screen with the conversation, also while a modal screen is open over it."""
        return self.screen_stack[0]

    @property
    def is_up(self) -> bool:
        """Whether the widgets exist. Timers and threads may still call while the widgets are being removed."""
        if not self.screen_stack:
            return False
        screen = self.main_screen
        return bool(screen.query(TreePane)) and bool(screen.query(Minimap)) and bool(screen.query(StatusLine))

    @property
    def tree_pane(self) -> TreePane:
        return self.main_screen.query_one(TreePane)

    @property
    def transcript(self) -> Transcript:
        return self.main_screen.query_one(Transcript)

    @property
    def minimap(self) -> Minimap:
        return self.main_screen.query_one(Minimap)

    @property
    def composer(self) -> Composer:
        return self.main_screen.query_one(Composer)

    @property
    def status(self) -> StatusLine:
        return self.main_screen.query_one(StatusLine)

    @property
    def in_tree(self) -> bool:
        """Whether keys act on rows rather than on messages."""
        return self.tree_pane.has_focus

    # Drawing

    def show_conversation(self) -> None:
        """Draw the conversation in `chat` at its current node."""
        self.visited.clear()
        self.editing_id = None
        self.tree_pane.show(self.chat)
        self.transcript.empty_text = EMPTY_TEXT if self.chat.is_text_tree else EMPTY
        self.look_at(self.chat.current_id, anchor="end")

    def look_at(self, node_id: str | None, *, view_id: str | None = None, anchor: Anchor = "fork") -> None:
        """Put the cursor on a node and show a path through it.

        node_id: None, or a node that is not in the tree, stands for the current node.
        view_id: the last node of the path; None for the node under the cursor.
        anchor: the place that the transcript scrolls to.
        """
        tree = self.chat.tree
        self.cursor_id = node_id if node_id in tree else self.chat.current_id
        self.view_id = view_id if view_id in tree else self.cursor_id
        self._remember_visit()
        path = tree.path(self.view_id)
        transcript = self.transcript
        blocks = transcript.blocks
        if blocks is None or blocks.chat is not self.chat or blocks.node_ids != path:
            transcript.show(self.chat, path, anchor)
        elif anchor == "end":
            transcript.to_end()
        transcript.point(self.cursor_id, scroll=anchor == "keep")
        self.tree_pane.lay_out()
        self.tree_pane.point(self.cursor_id)
        self.draw_labels()
        self.kv_watch.cursor_moved()

    def redraw(self) -> None:
        """Lay the tree out again after a change, and show the part of the view that still exists."""
        tree = self.chat.tree
        view_id = self.view_id if self.view_id in tree and not tree.is_hidden(self.view_id or "") else None
        cursor_id = self.cursor_id if self.cursor_id in tree and not tree.is_hidden(self.cursor_id or "") else None
        if view_id is None or (cursor_id and not tree.is_ancestor(cursor_id, view_id)):
            view_id = cursor_id or self.chat.current_id
        self.transcript.show(self.chat, tree.path(view_id), "keep" if view_id == self.view_id else "fork")
        self.look_at(cursor_id or view_id, view_id=view_id, anchor="fork")

    def draw_labels(self) -> None:
        """Draw the title, the size of the tree, and the composer's border text."""
        try:
            top, composer = self.main_screen.query_one(TopLine), self.composer
        except NoMatches:
            return
        tree = self.chat.tree
        top.title_text = self.chat.title or "new conversation"
        num = tree.num_visible
        top.figures = f"{num:,} message{'s' if num != 1 else ''}" if num else ""
        title = ""
        if self.editing_id is not None:
            title = "edit: enter makes a sibling · esc cancels"
        elif self.view_id != self.chat.current_id and self.chat.current_id:
            title = f"to: {tree[self.chat.current_id].preview[:40]}"
        composer.set_border_texts(title, "" if composer.text else "enter sends · tab tree · f1 help")

    def draw_activity(self) -> None:
        """Have each service set its slots of the status line. Call it after any activity changed."""
        self.replies.draw_activity()
        self.kv_watch.draw_activity()
        self.imports.draw_activity()
        self.models.draw_activity()

    def _remember_visit(self) -> None:
        """Record for each node above the view which child was visited last."""
        node_id = self.view_id
        while node_id is not None:
            parent_id = self.chat.tree[node_id].parent_id
            if self.visited.get(parent_id) == node_id:
                break
            self.visited[parent_id] = node_id
            node_id = parent_id

    # Jumping and focus

    def jump(self, node_id: str) -> None:
        """Make a node current, and remember the previous one for `jump_back`."""
        if self.chat.current_id is not None:
            self.jumps.append(self.chat.current_id)
        self.editing_id = None
        self._jump(node_id)

    def jump_back(self) -> bool:
        """Return to the node that was current before the last jump; False if there is none."""
        while self.jumps:
            node_id = self.jumps.pop()
            if node_id in self.chat.tree and not self.chat.tree.is_hidden(node_id):
                self._jump(node_id)
                return True
        return False

    def _jump(self, node_id: str) -> None:
        """Mark the messages that the previous branch does not have, until the next key."""
        previous = set(self.chat.tree.path(self.chat.current_id))
        self.chat.jump(node_id)
        self.look_at(node_id)
        self.transcript.mark([i for i in self.chat.tree.path(self.view_id) if i not in previous])

    def take_for_editing(self, node_id: str) -> None:
        """Put a message's text into the composer; sending it makes a sibling."""
        self.editing_id = node_id
        self.composer.put(self.chat.text(node_id))
        self.draw_labels()

    def to_composer(self) -> None:
        self.close_tree()
        self.composer.focus()

    def open_tree(self) -> None:
        """Show the tree (over the transcript in a narrow terminal) and focus it."""
        self.tree_pane.add_class("-open")
        self.tree_pane.focus()

    def close_tree(self) -> None:
        self.tree_pane.remove_class("-open")

    # Keys and memory

    @on(KeyQueue.Passed)
    def _key_passed(self, message: KeyQueue.Passed) -> None:
        message.stop()
        self.key_queue.passed(message)

    def freeze_garbage(self) -> None:
        """Exclude all current objects from garbage collection, whose passes over them would delay a key by 50 ms."""
        if not self.is_headless:
            gc.freeze()

    # Questions and messages

    def ask(self, screen: Screen[Answer], then: Callable[[Answer | None], None]) -> None:
        """Open a screen and call `then` with its result. An error in `then` is shown as an action's error is."""

        def guarded(answer: Answer | None) -> None:
            try:
                then(answer)
            except TreechatError as error:
                self.tell(error, NOTHING_LOST)

        self.push_screen(screen, guarded)

    def notify(self, message: str, **options: Any) -> None:
        """Show a notification with control characters made visible. It replaces one with the same text."""
        text = escape_controls(message)
        self._remove_notifications(lambda notification: notification.message == text)
        super().notify(text, **options)

    def _remove_notifications(self, is_over: Callable[[Notification], bool]) -> None:
        for notification in [each for each in self._notifications if is_over(each)]:
            self._unnotify(notification, refresh=False)

    def tell(self, error: TreechatError, kept: str = "") -> None:
        """Show an error: its message, the sentence `kept` about data that was not lost, and its hint."""
        lines = [error.message, kept, error.hint]
        self.notify("\n".join(line for line in lines if line), severity="error", timeout=10, markup=False)

    def say(self, text: str) -> None:
        """Show a short text. It replaces the previous one, so a message that an undo made wrong does not stay."""
        self._remove_notifications(lambda notification: notification.timeout == SAY_S)
        self.notify(text, timeout=SAY_S, markup=False)
