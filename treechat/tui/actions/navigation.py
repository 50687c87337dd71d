"""Move the cursor and the current node: rows, messages, siblings, forks, jumps; fold and filter the tree; the focus."""

from __future__ import annotations

from textual import on

from treechat.tui.transcript.minimap import Minimap
from treechat.tui.transcript.view import Transcript
from treechat.tui.tree.pane import TreePane
from treechat.tui.window import Window


class NavigationActions(Window):
    """The actions that move the cursor, the current node or the focus. None changes a message."""

    def action_row(self, by: int) -> None:
        """Go to the next or previous row or message; within a long message, scroll first."""
        if self.in_tree:
            here = self.tree_pane.cursor_row
            self._to_row(0 if here is None else here + by)
            return
        if self.transcript.scroll_within(self.cursor_id, by):
            return
        if (blocks := self.transcript.blocks) is None:
            return
        here = blocks.index_of.get(self.cursor_id or "")
        index = here + by if here is not None else len(blocks) - 1
        if 0 <= index < len(blocks):
            self.look_at(blocks.node_ids[index], view_id=self.view_id, anchor="keep")

    def _to_row(self, index: int) -> None:
        rows = self.tree_pane.rows
        if 0 <= index < len(rows):
            self.look_at(rows[index].tip_id)

    def action_parent(self) -> None:
        if self.cursor is not None and self.cursor.parent_id is not None:
            self.look_at(self.cursor.parent_id, view_id=self.view_id, anchor="keep")

    def action_child(self) -> None:
        children = self.chat.tree.children(self.cursor_id)
        if not children:
            return
        last = self.visited.get(self.cursor_id)
        child_id = last if last in children else children[-1]
        is_shown = self.view_id is not None and self.chat.tree.is_ancestor(child_id, self.view_id)
        self.look_at(child_id, view_id=self.view_id if is_shown else None, anchor="keep")

    def action_sibling(self, by: int) -> None:
        """Go to the next or previous sibling of the run under the cursor."""
        if self.cursor_id is None:
            return
        tree = self.chat.tree
        head_id = tree.run_of(self.cursor_id)[0]
        siblings = tree.siblings(head_id)
        index = siblings.index(head_id) + by if head_id in siblings else -1
        if not 0 <= index < len(siblings):
            self.bell()
            return
        leaf_id = self.leaf_of(siblings[index])
        self.look_at(tree.run_of(siblings[index])[-1] if self.in_tree else siblings[index], view_id=leaf_id)

    def action_fork(self, by: int) -> None:
        tree = self.chat.tree
        path = tree.path(self.view_id)
        if self.cursor_id not in path:
            return
        here = path.index(self.cursor_id)
        steps = range(here - 1, -1, -1) if by < 0 else range(here + 1, len(path))
        fork = next((path[i] for i in steps if tree.is_fork(path[i])), None)
        if fork is None:
            self.bell()
        else:
            self.look_at(fork, view_id=self.view_id, anchor="keep")

    def action_root(self) -> None:
        path = self.chat.tree.path(self.view_id)
        if path:
            self.look_at(path[0], view_id=self.view_id, anchor="keep")

    def action_leaf(self) -> None:
        if self.cursor_id is not None:
            self.look_at(self.leaf_of(self.cursor_id), anchor="end")

    def action_here(self) -> None:
        self.look_at(self.chat.current_id, anchor="end")

    # Jumping

    def action_jump(self) -> None:
        """Make the node under the cursor current; a user's message is also put into the composer."""
        node = self.cursor
        if node is None:
            return
        row = self.tree_pane.row
        if self.in_tree and row is not None and row.dead_end_ids:
            self.action_fold()
            return
        if node.id != self.chat.current_id:
            self.jump(node.id)
            if node.role == "user":
                self.take_for_editing(node.id)
        self.to_composer()

    def action_jump_back(self) -> None:
        if not self.jump_back():
            self.bell()

    # Folds

    def action_fold(self) -> None:
        self.tree_pane.toggle_fold()

    def action_hoist(self) -> None:
        self.tree_pane.hoist()

    def action_unhoist(self) -> None:
        self.tree_pane.unhoist()

    def action_filter(self) -> None:
        """Filter the tree's rows by the next filter."""
        chosen = self.tree_pane.next_filter()
        if not self.tree_pane.display:
            self.say(f"tree: {chosen}")

    def action_unfold(self) -> None:
        """Show or fold thoughts, calls and results in the message under the cursor."""
        if self.cursor_id is not None and not self.transcript.unfold(self.cursor_id):
            self.say("There are no thoughts in this message")

    # Focus

    def action_compose_text(self) -> None:
        self.to_composer()

    def action_cycle_focus(self, by: int) -> None:
        parts = [self.composer, self.tree_pane, self.transcript]
        index = next((i for i, part in enumerate(parts) if part.has_focus), 0)
        target = parts[(index + by) % len(parts)]
        if target is self.tree_pane:
            self.open_tree()
        else:
            self.close_tree()
            target.focus()

    # Mouse

    @on(TreePane.Pointed)
    def _row_clicked(self, event: TreePane.Pointed) -> None:
        self.look_at(event.node_id)

    @on(TreePane.Chosen)
    def _row_chosen(self, event: TreePane.Chosen) -> None:
        self.look_at(event.node_id)
        self.action_jump()

    @on(Transcript.Pointed)
    def _message_clicked(self, event: Transcript.Pointed) -> None:
        self.look_at(event.node_id, view_id=self.view_id, anchor="keep")

    @on(Minimap.Pointed)
    def _cell_clicked(self, event: Minimap.Pointed) -> None:
        self.look_at(event.node_id, view_id=self.view_id, anchor="keep")
