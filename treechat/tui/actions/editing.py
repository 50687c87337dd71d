"""Changing the tree without a model: marks, names, hiding, undo, and the windows for them."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from textual.app import SuspendNotSupported

from treechat.errors import TreechatError
from treechat.store import ConversationInfo, Event, Store
from treechat.tui.actions.output import Exporting
from treechat.tui.safe_text import without_markdown
from treechat.tui.screens.ask import AskScreen
from treechat.tui.screens.details import DetailsScreen, facts_of
from treechat.tui.screens.pick import MAX_CHOICES, PickScreen, StoreSearch
from treechat.tui.widgets.choice_list import ListChoice

CHANGES = {"hide_conversation": "hiding the conversation", "graft": "copy", "rebase": "replay"}
"""What a kind of event is called where its name would not be understood."""

LONG_TITLE = 400
"""Characters of a title that a row may show."""


def _size(info: ConversationInfo) -> str:
    messages, forks = info.num_nodes, info.num_forks
    return f"{messages:,} message{'s' if messages != 1 else ''} · {forks:,} fork{'s' if forks != 1 else ''}"


class Changing(Exporting):
    """The actions whose effects are marks and names."""

    def action_bookmark(self) -> None:
        if (node := self.cursor) is not None:
            self.chat.set_bookmark(node.id, not node.bookmarked)
            self.transcript.refresh()
            self.tree_pane.sync()

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
                self.chat.set_label(node.id, label or None)
                self.transcript.refresh()
                self.tree_pane.sync()

        self.ask(AskScreen("Label", node.label or "", "a name for this message; empty takes it away"), done)

    def action_rename(self) -> None:
        def done(title: str | None) -> None:
            if title:
                self.chat.rename(title)
                self.draw_labels()

        self.ask(AskScreen("Title", self.chat.title), done)

    def action_hide(self) -> None:
        """Hides the whole run in the tree, the message and all below it in the transcript."""
        row = self.tree_pane.row
        node_id = row.head_id if self.in_tree and row is not None and not row.dead_end_ids else self.cursor_id
        if node_id is None:
            return
        if self.chat.streaming and any(self.chat.tree.is_ancestor(node_id, i) for i in self.chat.streaming):
            self.say("A reply is being written there: esc stops it first")
            return
        num_nodes = sum(1 for _ in self.chat.tree.subtree(node_id))
        parent_id = self.chat.tree[node_id].parent_id
        self.chat.hide(node_id)
        self.cursor_id = parent_id if parent_id is not None else self.chat.current_id
        self.redraw()
        self.say(f"{num_nodes:,} message{'s' if num_nodes != 1 else ''} hidden · u undoes it")

    def action_undo(self) -> None:
        self._step_history(self.chat.undo, "undone", "Nothing to undo")

    def action_redo(self) -> None:
        self._step_history(self.chat.redo, "done again", "Nothing to redo")

    def _step_history(self, step: Callable[[], Event | None], done: str, nothing: str) -> None:
        if self.chat.streaming:
            self.say("A reply is being written: esc stops it first")
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

    def edit_outside(self, text: str) -> str | None:
        """The text after `$VISUAL` or `$EDITOR` had it; None where nothing changed or there is no editor."""
        editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "message.md"
            path.write_text(text, encoding="utf-8", errors="replace")
            try:
                with self.suspend():
                    subprocess.run([*shlex.split(editor), str(path)], check=True)
            except (OSError, ValueError, SuspendNotSupported, subprocess.CalledProcessError) as error:
                self.tell(TreechatError(f"{editor} did not end well: {error}", "Set $EDITOR to an editor."))
                return None
            edited = path.read_text(encoding="utf-8", errors="replace").rstrip("\n")
        return edited if edited.strip() and edited != text.rstrip("\n") else None

    # Lists

    def action_details(self) -> None:
        if (node := self.cursor) is not None:
            turn = self.chat.turn(node.id) if node.role == "assistant" else None
            cost = self.chat.kv.cost(node.id) if self.chat.kv is not None else None
            self.push_screen(DetailsScreen(facts_of(node, turn, cost)))

    def action_open(self) -> None:
        def find(store: Store, query: str) -> list[ListChoice]:
            words = query.casefold().split()
            found = ((i, title) for i, title in store.titles() if all(word in title.casefold() for word in words))
            return [
                ListChoice(i, without_markdown(title[:LONG_TITLE]) or "(untitled)")
                for i, title in islice(found, MAX_CHOICES)
            ]

        def sizes(store: Store, ids: Sequence[str]) -> dict[str, str]:
            return {info.id: _size(info) for info in store.conversations(ids=ids)}

        def done(conversation_id: str | None) -> None:
            if conversation_id is not None:
                self.switch_to(conversation_id)

        self.ask(PickScreen("Conversations", StoreSearch(self.store, find, sizes), "type to narrow down"), done)

    def action_find(self) -> None:
        chat = self.chat

        def find(store: Store, query: str) -> list[ListChoice]:
            if not query.strip() or chat.conversation_id is None:
                return []
            hits = store.search(query, chat.conversation_id)
            return [ListChoice(hit.node_id, without_markdown(hit.snippet)) for hit in hits if hit.node_id in chat.tree]

        def done(node_id: str | None) -> None:
            if node_id is not None and node_id in self.chat.tree:
                self._look_at_found(node_id)

        self.ask(PickScreen("Search this conversation", StoreSearch(self.store, find), "words"), done)

    def action_search_all(self) -> None:
        homes: dict[str, str] = {}

        def find(store: Store, query: str) -> list[ListChoice]:
            hits = store.search(query) if query.strip() else []
            homes.update((hit.node_id, hit.conversation_id) for hit in hits)
            return [
                ListChoice(hit.node_id, without_markdown(hit.snippet), without_markdown(hit.title[:LONG_TITLE]))
                for hit in hits
            ]

        def done(node_id: str | None) -> None:
            if node_id is None:
                return
            if homes[node_id] != self.chat.conversation_id:
                self.switch_to(homes[node_id])
            if node_id in self.chat.tree:
                self._look_at_found(node_id)

        self.ask(PickScreen("Search everything", StoreSearch(self.store, find), "words"), done)

    def _look_at_found(self, node_id: str) -> None:
        self.look_at(node_id, view_id=self.leaf_of(node_id))
        self.transcript.point(node_id)

    def action_new(self) -> None:
        self.switch_to(None)
        self.to_composer()

    def switch_to(self, conversation_id: str | None) -> None:
        """Leave this conversation for another, None for a new one; replies go on being written."""
        self.chat = self._chat_of(conversation_id)
        self._jumps.clear()
        self.show_conversation()
