"""Edit a message, and mark, name, hide or describe one; undo and redo."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from textual import on
from textual.app import SuspendNotSupported

from treechat.errors import TreechatError
from treechat.store import Event
from treechat.tui.screens.ask import AskScreen
from treechat.tui.screens.details import DetailsScreen, facts_of
from treechat.tui.widgets.composer import Composer
from treechat.tui.window import Window

CHANGES = {"hide_conversation": "hiding the conversation", "graft": "copy", "rebase": "replay"}
"""The names that are shown for kinds of events, if the kind itself would not be understood."""


class EditingActions(Window):
    """The actions that change or describe one message, and undo changes."""

    def action_edit(self) -> None:
        if (node := self.cursor) is not None:
            self.take_for_editing(node.id)
            self.to_composer()

    def action_editor(self) -> None:
        if (node := self.cursor) is None:
            return
        if self.is_web:
            self.action_edit()
            self.say("A browser has no $EDITOR: edit the message here")
            return
        edited = self._edit_outside(self.chat.text(node.id))
        if edited is None:
            return
        if self.chat.model is None and node.role == "user":
            self.take_for_editing(node.id)
            self.composer.put(edited)
            self.to_composer()
        else:
            self.replies.follow(self.chat.edit(node.id, edited))

    @on(Composer.Recalled)
    def _recalled(self) -> None:
        path = self.chat.tree.path(self.chat.current_id)
        last = next((i for i in reversed(path) if self.chat.tree[i].role == "user"), None)
        if last is not None:
            self.take_for_editing(last)

    def _edit_outside(self, text: str) -> str | None:
        """Return the text as changed in `$VISUAL` or `$EDITOR`; None if it did not change or the editor failed."""
        editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "message.md"
            path.write_text(text, encoding="utf-8", errors="replace")
            try:
                with self.suspend():
                    subprocess.run([*shlex.split(editor), str(path)], check=True)
            except (OSError, ValueError, SuspendNotSupported, subprocess.CalledProcessError) as error:
                self.tell(TreechatError(f"{editor} failed: {error}", "Set $EDITOR to an editor."))
                return None
            edited = path.read_text(encoding="utf-8", errors="replace").rstrip("\n")
        return edited if edited.strip() and edited != text.rstrip("\n") else None

    # Marks and names

    def action_bookmark(self) -> None:
        if (node := self.cursor) is not None:
            self.chat.set_bookmark(node.id, not node.bookmarked)
            self.transcript.refresh()
            self.tree_pane.sync()
            self.minimap.draw(force=True)

    def action_next_bookmark(self) -> None:
        ids = [node_id for node_id in self.chat.tree.walk() if self.chat.tree[node_id].bookmarked]
        if not ids:
            self.say("No bookmarks yet: b sets one")
            return
        index = ids.index(self.cursor_id) + 1 if self.cursor_id in ids else 0
        self.look_at(ids[index % len(ids)], anchor="fork")

    def action_label(self) -> None:
        node = self.cursor
        if node is None:
            return

        def done(label: str | None) -> None:
            if label is not None:
                self.chat.nodes.set_label(node.id, label or None)
                self.transcript.refresh()
                self.tree_pane.sync()

        self.ask(AskScreen("Label", node.label or "", "a name for this message; empty removes it"), done)

    def action_details(self) -> None:
        if (node := self.cursor) is not None:
            turn = self.chat.turn(node.id) if node.role == "assistant" else None
            cost = self.chat.kv.cost(node.id) if self.chat.kv is not None else None
            self.push_screen(DetailsScreen(facts_of(node, turn, cost)))

    # Hiding and undoing

    def action_hide(self) -> None:
        """Hide the branch under the cursor: from its run on in the tree, from the message on in the transcript."""
        node_id = self.branch_id
        if node_id is None:
            return
        if self.chat.streaming and any(self.chat.tree.is_ancestor(node_id, i) for i in self.chat.streaming):
            self.say("A reply is streaming there: esc stops it first")
            return
        num_nodes = sum(1 for _ in self.chat.tree.subtree(node_id))
        parent_id = self.chat.tree[node_id].parent_id
        self.chat.nodes.hide(node_id)
        self.cursor_id = parent_id if parent_id is not None else self.chat.current_id
        self.redraw()
        self.say(f"{num_nodes:,} message{'s' if num_nodes != 1 else ''} hidden · u undoes it")

    def action_undo(self) -> None:
        self._step_history(self.chat.undo, "undone", "Nothing to undo")

    def action_redo(self) -> None:
        self._step_history(self.chat.redo, "redone", "Nothing to redo")

    def _step_history(self, step: Callable[[], Event | None], done: str, nothing: str) -> None:
        if self.chat.streaming:
            self.say("A reply is streaming: esc stops it first")
            return
        before = self.chat.current_id
        event = step()
        if event is None:
            self.say(nothing)
            return
        if (
            event.node_id is not None
            and event.node_id in self.chat.tree
            and not self.chat.tree.is_hidden(event.node_id)
        ):
            self.cursor_id = event.node_id
        if self.chat.current_id != before:
            self.view_id = self.chat.current_id
        self.redraw()
        self.say(f"{CHANGES.get(event.kind, event.kind)} {done}")
