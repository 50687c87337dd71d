"""What all parts of the app share: the conversation, the widgets, where the cursor is, and drawing it all anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from textual.css.query import NoMatches
from textual.notifications import Notification
from textual.screen import Screen

from treechat.chat.session import Chat
from treechat.chat.settings import Settings
from treechat.config import Config
from treechat.errors import TreechatError
from treechat.store import Store
from treechat.tree import Node
from treechat.tui.key_queue import InTurn
from treechat.tui.safe_text import escape_controls
from treechat.tui.transcript.view import Anchor, Transcript
from treechat.tui.tree.pane import TreePane
from treechat.tui.widgets.composer import Composer
from treechat.tui.widgets.status import StatusLine, TopLine

EMPTY = (
    "A new conversation.\n\nWrite below and press enter.\nctrl+o opens an earlier one, f1 lists all keys.\n"
    "ctrl+p, then “tour”, shows you around."
)
EMPTY_TEXT = "A new text.\n\nThis model has no chat template: it goes on with what you write.\nf1 lists all keys."

Answer = TypeVar("Answer")

NOTHING_LOST = "Nothing was lost."

SAID_S = 4.0
"""How long a word in passing stays."""


class Base(InTurn):
    """State of one window.

    The *current* node is where the next message goes. The *cursor* is what the keys act on. The *view* is the path
    that the transcript shows: the cursor is on it, and it may end below.
    """

    CSS_PATH = "treechat.tcss"
    TITLE = "treechat"

    def __init__(self, store_path: Path | None, config: Config, conversation_id: str | None) -> None:
        """Raises StoreError where the database cannot be opened."""
        super().__init__()
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]
        self.config = config
        self.settings = Settings.from_config(config)
        self.store = Store.open(store_path)
        if conversation_id is None and (latest := self.store.conversations(limit=1)):
            conversation_id = latest[0].id
        self.chat = self._chat_of(conversation_id)
        self.cursor_id: str | None = self.chat.current_id
        self.view_id: str | None = self.chat.current_id
        self.editing_id: str | None = None
        self.visited: dict[str | None, str] = {}

    def _chat_of(self, conversation_id: str | None) -> Chat:
        model = self.chat.model if hasattr(self, "chat") else None
        if conversation_id is None:
            return Chat.new(self.store, self.settings, model)
        return Chat.open(self.store, conversation_id, self.settings, model)

    # Widgets

    @property
    def base_screen(self) -> Screen[object]:
        """The screen with the conversation, also while a window is open over it."""
        return self.screen_stack[0]

    @property
    def is_up(self) -> bool:
        """Whether there is a screen: timers and threads may come in after it has gone."""
        return bool(self.screen_stack) and bool(self.base_screen.query(TreePane))

    @property
    def tree_pane(self) -> TreePane:
        return self.base_screen.query_one(TreePane)

    @property
    def transcript(self) -> Transcript:
        return self.base_screen.query_one(Transcript)

    @property
    def composer(self) -> Composer:
        return self.base_screen.query_one(Composer)

    @property
    def status(self) -> StatusLine:
        return self.base_screen.query_one(StatusLine)

    @property
    def is_narrow(self) -> bool:
        return self.base_screen.has_class("-narrow")

    @property
    def in_tree(self) -> bool:
        """Whether keys act on rows rather than on messages."""
        return self.tree_pane.has_focus

    @property
    def cursor(self) -> Node | None:
        return self.chat.tree.nodes.get(self.cursor_id) if self.cursor_id else None

    # Drawing

    def show_conversation(self) -> None:
        """Draw everything for the conversation in `chat`, at its current node."""
        self.visited.clear()
        self.editing_id = None
        self.tree_pane.show(self.chat)
        self.transcript.empty_text = EMPTY_TEXT if self.chat.is_text_tree else EMPTY
        self.look_at(self.chat.current_id, anchor="end")

    def look_at(self, node_id: str | None, *, view_id: str | None = None, anchor: Anchor = "fork") -> None:
        """Put the cursor on a node, and show the path to `view_id` (None: to the node itself)."""
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
        self.cursor_moved()

    def redraw(self) -> None:
        """The tree changed: lay it out again, and show what is left of the view."""
        tree = self.chat.tree
        view_id = self.view_id if self.view_id in tree and not tree.is_hidden(self.view_id or "") else None
        cursor_id = self.cursor_id if self.cursor_id in tree and not tree.is_hidden(self.cursor_id or "") else None
        if view_id is None or (cursor_id and not tree.is_ancestor(cursor_id, view_id)):
            view_id = cursor_id or self.chat.current_id
        self.transcript.show(self.chat, tree.path(view_id), "keep" if view_id == self.view_id else "fork")
        self.look_at(cursor_id or view_id, view_id=view_id, anchor="fork")

    def draw_labels(self) -> None:
        """Title, sizes, and what the composer is about to do."""
        try:
            top, composer = self.base_screen.query_one(TopLine), self.composer
        except NoMatches:
            return
        tree = self.chat.tree
        top.title_text = self.chat.title or "new conversation"
        num = tree.num_visible
        top.figures = f"{num:,} message{'s' if num != 1 else ''}" if num else ""
        title = ""
        if self.editing_id is not None:
            title = "edit: enter makes a sibling · esc leaves it"
        elif self.view_id != self.chat.current_id and self.chat.current_id:
            title = f"to: {tree[self.chat.current_id].preview[:40]}"
        composer.set_border_texts(title, "" if composer.text else "enter sends · tab tree · f1 help")

    def cursor_moved(self) -> None:
        """Something for a subclass to hook on."""

    def _remember_visit(self) -> None:
        """Which child was visited last, for each node above the view."""
        node_id = self.view_id
        while node_id is not None:
            parent_id = self.chat.tree[node_id].parent_id
            if self.visited.get(parent_id) == node_id:
                break
            self.visited[parent_id] = node_id
            node_id = parent_id

    def leaf_of(self, node_id: str) -> str:
        """The leaf below a node by the children visited last, the newest where none was."""
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

    # Asking and telling

    def ask(self, screen: Screen[Answer], then: Callable[[Answer | None], None]) -> None:
        """Open a window, and do something with what it returns; where that fails, it is told as an action's is."""

        def guarded(answer: Answer | None) -> None:
            try:
                then(answer)
            except TreechatError as error:
                self.tell(error, NOTHING_LOST)

        self.push_screen(screen, guarded)

    def notify(self, message: str, **options: Any) -> None:
        """Of a path or a name that is told, only what can be seen reaches the terminal; what is told again, once."""
        text = escape_controls(message)
        self._take_back(lambda told: told.message == text)
        super().notify(text, **options)

    def _take_back(self, is_over: Callable[[Notification], bool]) -> None:
        for told in [each for each in self._notifications if is_over(each)]:
            self._unnotify(told, refresh=False)

    def tell(self, error: TreechatError, kept: str = "") -> None:
        """What happened, what was kept, what to do."""
        lines = [error.message, kept, error.hint]
        self.notify("\n".join(line for line in lines if line), severity="error", timeout=10, markup=False)

    def say(self, text: str) -> None:
        """In passing: it takes the place of what was said before. What an undo took back is not on the screen still."""
        self._take_back(lambda told: told.timeout == SAID_S)
        self.notify(text, timeout=SAID_S, markup=False)
