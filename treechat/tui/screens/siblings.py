"""Siblings side by side, during and after streaming: stop, hide or promote one."""

from __future__ import annotations

from collections.abc import Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical

from treechat.chat.events import ChatEvent, ReplyFinished
from treechat.chat.session import Chat
from treechat.tui.bindings import COLUMN_BINDINGS
from treechat.tui.safe_text import fit, without_markdown
from treechat.tui.screens.modal import Modal
from treechat.tui.screens.sibling_columns import SiblingColumns


class SiblingsScreen(Modal[str | None]):
    """Returns the id of the sibling to make current, or None. Replies continue after it is closed."""

    BINDINGS = COLUMN_BINDINGS

    def __init__(self, chat: Chat, node_ids: Sequence[str], chosen_id: str | None = None) -> None:
        """Show siblings.

        chat: the conversation.
        node_ids: at least one sibling, in the order of the columns.
        chosen_id: the column with the cursor; None for the first.
        """
        super().__init__()
        self.chat = chat
        self.columns = SiblingColumns(chat, node_ids)
        self._chosen_id = chosen_id

    def compose(self) -> ComposeResult:
        with Vertical(id="siblings", classes="window full") as window:
            window.border_subtitle = "enter promotes · s stops · o only this · d hides · esc"
            yield self.columns

    def _set_title(self) -> None:
        parent_id = self.chat.tree[self.columns.columns[0].node_id].parent_id
        about = f" to: {fit(without_markdown(self.chat.tree[parent_id].preview), 40).rstrip()}" if parent_id else ""
        title = f"{len(self.columns.columns)} alternatives{about}"
        self.query_one("#siblings").border_title = title.replace("[", "\\[")

    def on_mount(self) -> None:
        self._set_title()
        self.columns.focus()
        ids = [column.node_id for column in self.columns.columns]
        self.call_after_refresh(self.columns.choose, ids.index(self._chosen_id) if self._chosen_id in ids else 0)

    def apply_event(self, event: ChatEvent) -> None:
        """Draw the effect of an event of the conversation."""
        if isinstance(event, ReplyFinished):
            self.columns.finish(event.node.id)
        self.columns.refresh()

    @property
    def node_id(self) -> str:
        """The chosen sibling."""
        return self.columns.chosen.node_id

    @property
    def _writing(self) -> list[str]:
        return [column.node_id for column in self.columns.columns if column.node_id in self.chat.replies]

    # Keys

    def action_column(self, by: int) -> None:
        self.columns.choose(self.columns.index + by)

    def action_line(self, by: int) -> None:
        self.columns.scroll(by)

    def action_page(self, by: int) -> None:
        self.columns.scroll(by * max(self.columns.body_height - 1, 1))

    def action_edge(self, by: int) -> None:
        self.columns.scroll(by * 10**9)

    def action_stop(self) -> None:
        """Stop the chosen reply. Its text is kept."""
        if not self.chat.stop(self.node_id):
            self.app.bell()

    def action_only(self) -> None:
        """Stop all replies but the chosen one. Their text is kept."""
        others = [node_id for node_id in self._writing if node_id != self.node_id]
        for node_id in others:
            self.chat.stop(node_id)
        if not others:
            self.app.bell()

    def action_hide(self) -> None:
        """Hide the chosen sibling. Undo shows it again."""
        node_id = self.node_id
        if node_id in self.chat.replies:
            self.notify("This reply is being written: s stops it first", markup=False)
            return
        self.chat.nodes.hide(node_id)
        if len(self.columns.columns) == 1:
            self.dismiss(None)
            return
        self.columns.drop(node_id)
        self._set_title()
        self.notify("Hidden · u in the tree shows it again", markup=False)

    def action_unfold(self) -> None:
        if not self.columns.unfold():
            self.app.bell()

    def action_promote(self) -> None:
        self.dismiss(self.node_id)

    def action_escape(self) -> None:
        """Stop all replies of the columns; if none is streaming, close."""
        writing = self._writing
        for node_id in writing:
            self.chat.stop(node_id)
        if not writing:
            self.dismiss(None)

    def action_close(self) -> None:
        self.dismiss(None)

    # Mouse

    @on(SiblingColumns.Pointed)
    def _pointed(self, event: SiblingColumns.Pointed) -> None:
        self.columns.choose(event.index)
        if event.is_twice:
            self.action_promote()
