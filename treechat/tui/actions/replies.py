"""Send the composer's text; regenerate, compare side by side, and continue replies."""

from __future__ import annotations

from collections.abc import Sequence

from textual import on

from treechat.tui.screens.siblings import SiblingsScreen
from treechat.tui.widgets.composer import Composer
from treechat.tui.window import Window


class ReplyActions(Window):
    """The actions that ask for replies, and the columns that show alternatives."""

    @on(Composer.Submitted)
    def _submitted(self, event: Composer.Submitted) -> None:
        editing = self.chat.tree.nodes.get(self.editing_id or "")
        needs_model = editing is None or editing.role == "user"
        if self.chat.model is None and needs_model:
            self.replies.queue()
        else:
            self.replies.send(event.text)

    def action_count(self, n: int) -> None:
        """Have the next `regenerate` make n replies."""
        self.reply_count = n
        self.status.set("notice", f"{n} × …  r regenerates")

    def action_regenerate(self) -> None:
        """Add a reply beside the one under the cursor; several are shown in columns."""
        node, chat, n = self.cursor, self.chat, self.reply_count
        self.reply_count = 1
        if node is None:
            return
        if n == 1:
            self.replies.follow(chat.regenerate(node.id))
            return
        parent_id = node.parent_id if node.role == "assistant" else node.id

        def started() -> None:
            new_ids = [node_id for node_id in chat.replies if chat.tree[node_id].parent_id == parent_id]
            if chat is self.chat and new_ids:
                self._show_siblings(new_ids)

        self.replies.follow(chat.regenerate(node.id, n), started)

    def action_resume(self) -> None:
        if self.cursor_id is not None:
            self.replies.follow(self.chat.resume(self.cursor_id))

    def action_columns(self) -> None:
        """Show the alternatives at the fork above the cursor in columns."""
        if self.cursor_id is None:
            return
        tree = self.chat.tree
        head_id = tree.run_of(self.cursor_id)[0]
        siblings = tree.siblings(head_id)
        if len(siblings) < 2:
            self.say("No alternatives here: 3 r makes three replies, e edits as a sibling")
            return
        self._show_siblings(siblings, head_id)

    def _show_siblings(self, node_ids: Sequence[str], chosen_id: str | None = None) -> None:
        """Show siblings in columns. The promoted one becomes current."""
        chat = self.chat

        def done(node_id: str | None) -> None:
            if chat is not self.chat:
                return
            self.redraw()
            if node_id is not None and node_id in chat.tree:
                # Continue at the leaf visited last below it, unless that leaf is a message of the user.
                leaf_id = self.leaf_of(node_id)
                self.jump(node_id if chat.tree[leaf_id].role == "user" else leaf_id)
                self.to_composer()

        self.ask(SiblingsScreen(chat, node_ids, chosen_id), done)
