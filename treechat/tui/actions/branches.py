"""Siblings beside each other: several replies asked for at once, and the alternatives that are there."""

from __future__ import annotations

from collections.abc import Sequence

from treechat.chat.events import ChatEvent
from treechat.chat.session import Chat
from treechat.tui.actions.comparing import Comparing
from treechat.tui.screens.siblings import SiblingsScreen
from treechat.tui.tree.rows import run_of


class Beside(Comparing):
    """The actions that show siblings in columns."""

    def action_regenerate(self) -> None:
        """One reply grows in the transcript, several in columns."""
        node, chat, n = self.cursor, self.chat, self.count
        if n == 1 or node is None:
            super().action_regenerate()
            return
        self.count = 1
        parent_id = node.parent_id if node.role == "assistant" else node.id

        def started() -> None:
            new_ids = [node_id for node_id in chat.replies if chat.tree[node_id].parent_id == parent_id]
            if chat is self.chat and new_ids:
                self.show_siblings(new_ids)

        self.follow(chat.regenerate(node.id, n), started)

    def action_beside(self) -> None:
        """The alternatives at the fork above the cursor."""
        if self.cursor_id is None:
            return
        tree = self.chat.tree
        head_id = run_of(tree, self.cursor_id)[0]
        siblings = tree.siblings(head_id)
        if len(siblings) < 2:
            self.say("No alternatives here: 3 r makes three replies, e edits beside")
            return
        self.show_siblings(siblings, head_id)

    def show_siblings(self, node_ids: Sequence[str], chosen_id: str | None = None) -> None:
        """In columns; the one that is promoted becomes current."""
        chat = self.chat

        def done(node_id: str | None) -> None:
            if chat is not self.chat:
                return
            self.redraw()
            if node_id is not None and node_id in chat.tree:
                # Going on below it, where that was done before.
                leaf_id = self.leaf_of(node_id)
                self.jump(node_id if chat.tree[leaf_id].role == "user" else leaf_id)
                self.to_composer()

        self.ask(SiblingsScreen(chat, node_ids, chosen_id), done)

    def _draw(self, chat: Chat, event: ChatEvent) -> None:
        super()._draw(chat, event)
        for screen in self.screen_stack:
            if isinstance(screen, SiblingsScreen) and screen.chat is chat:
                screen.apply_event(event)
