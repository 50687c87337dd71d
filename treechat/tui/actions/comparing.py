"""Holding the branch under the cursor against the current one."""

from __future__ import annotations

from treechat.tui.actions.splitting import Splitting
from treechat.tui.safe_text import without_markdown
from treechat.tui.screens.branch_diff import compare
from treechat.tui.screens.compare import CompareScreen
from treechat.tui.tree.rows import run_of


class Comparing(Splitting):
    """The action that compares two branches."""

    def action_compare(self) -> None:
        """With the branch under the cursor; on the current branch, with the sibling visited last or the next one."""
        chat, left_id, right_id = self.chat, self.chat.current_id, self._other_branch()
        if left_id is None or right_id is None:
            self.say("Nothing to compare with: put the cursor on another branch")
            return

        def done(jumps: bool | None) -> None:
            if jumps:
                self.jump(right_id)

        comparison = compare(chat, left_id, right_id)
        self.ask(CompareScreen(comparison, self._name_of(left_id), self._name_of(right_id)), done)

    def _other_branch(self) -> str | None:
        tree, current_id = self.chat.tree, self.chat.current_id
        if self.view_id is None or current_id is None:
            return None
        if not tree.is_ancestor(self.view_id, current_id) and not tree.is_ancestor(current_id, self.view_id):
            return self.view_id
        for node_id in reversed(tree.path(self.cursor_id)):
            siblings = tree.siblings(node_id)
            if len(siblings) > 1 and node_id in siblings:
                index = siblings.index(node_id)
                return self.leaf_of(siblings[index + 1 if index + 1 < len(siblings) else index - 1])
        return None

    def _name_of(self, node_id: str) -> str:
        tree = self.chat.tree
        head = tree[run_of(tree, node_id)[0]]
        here = "  ← here" if node_id == self.chat.current_id else ""
        return f"{tree[node_id].label or head.label or without_markdown(head.preview)}{here}"
