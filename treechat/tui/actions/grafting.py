"""Taking the branch under the cursor elsewhere: the target is picked from a list, the current path first."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from itertools import islice
from pathlib import Path

from treechat.chat.events import ChatEvent, Replaying
from treechat.chat.grafting import fits_under, graft, rebase
from treechat.chat.session import Chat
from treechat.config import Config
from treechat.errors import TreechatError
from treechat.tree import Role
from treechat.tui.actions.branches import Beside
from treechat.tui.safe_text import without_markdown
from treechat.tui.screens.pick import MAX_CHOICES, PickScreen
from treechat.tui.widgets.choice_list import ListChoice

ROOT = ""
"""The choice that makes a root."""

NAMES: dict[Role, str] = {"user": "you", "assistant": "reply", "system": "system"}


class Grafting(Beside):
    """The actions that copy a branch, and that replay one."""

    def __init__(self, store_path: Path | None, config: Config, conversation_id: str | None) -> None:
        super().__init__(store_path, config, conversation_id)
        self._replaying: dict[Chat, Replaying] = {}

    def action_graft(self) -> None:
        """The whole row in the tree, the message and all below it in the transcript."""
        chat, node_id = self.chat, self.branch_id
        if node_id is None:
            return
        num = sum(1 for _ in chat.tree.subtree(node_id))

        def done(target_id: str | None) -> None:
            try:
                copy = graft(chat, node_id, target_id)
            except TreechatError as error:
                self.tell(error, "Nothing was copied.")
                return
            if chat is self.chat:
                self.redraw()
                self.look_at(copy.id, view_id=self.leaf_of(copy.id))
            self.say(f"{num:,} message{'s' if num != 1 else ''} copied · u takes the copy back")

        self._pick(f"Copy {num:,} message{'s' if num != 1 else ''} under", node_id, "copies", done)

    def action_rebase(self) -> None:
        """One's own turns from the cursor on, to the end of the branch that is shown."""
        chat, node_id = self.chat, self.branch_id
        if node_id is None:
            return
        view_id = self.view_id if self.view_id and chat.tree.is_ancestor(node_id, self.view_id) else None
        path = chat.tree.path(self.leaf_of(view_id or node_id))
        turns = [i for i in path[path.index(node_id) :] if chat.tree[i].role == "user"]
        if not turns:
            self.say("No turn of yours from here on: go to one, or above one")
            return

        def done(target_id: str | None) -> None:
            self.follow(self._rebased(chat, turns, target_id))

        num = len(turns)
        self._pick(f"Replay {num:,} turn{'s' if num != 1 else ''} of yours under", turns[0], "replays", done)

    async def _rebased(self, chat: Chat, node_ids: list[str], target_id: str | None) -> AsyncGenerator[ChatEvent, None]:
        try:
            async with aclosing(rebase(chat, node_ids, target_id)) as events:
                async for event in events:
                    if isinstance(event, Replaying):
                        self._replaying[chat] = event
                        self.draw_activity()
                    yield event
        finally:
            self._replaying.pop(chat, None)

    @property
    def branch_id(self) -> str | None:
        """Where the branch under the cursor begins: a whole row in the tree, a message in the transcript."""
        row = self.tree_pane.row
        return row.head_id if self.in_tree and row is not None and not row.dead_end_ids else self.cursor_id

    def _pick(self, title: str, node_id: str, verb: str, done: Callable[[str | None], None]) -> None:
        """Have a target chosen that the message can follow."""
        chat = self.chat

        def chosen(target_id: str | None) -> None:
            if target_id is not None and (target_id == ROOT or target_id in chat.tree):
                done(target_id or None)

        def find(query: str) -> list[ListChoice]:
            return list(islice(self._targets(chat, node_id, query.casefold().split()), MAX_CHOICES))

        self.ask(PickScreen(title, find, "type to narrow down", verb), chosen)

    def _targets(self, chat: Chat, node_id: str, words: list[str]) -> Iterator[ListChoice]:
        tree, role = chat.tree, chat.tree[node_id].role
        path = tree.path(chat.current_id)[::-1]
        marked = [i for i in tree.walk() if tree[i].bookmarked or tree[i].label]
        if fits_under(chat, role, None, chat.is_text_tree) and all(word in "beginning" for word in words):
            yield ListChoice(ROOT, "(the beginning)", "a tree of its own beside the others")
        for target_id in dict.fromkeys((*path, *marked, *tree.walk())):
            node = tree[target_id]
            preview = without_markdown(node.preview)
            text = f"{node.label}: {preview}" if node.label else preview or f"({node.status})"
            if all(word in text.casefold() for word in words) and fits_under(chat, role, target_id, chat.is_text_tree):
                here = " · here" if target_id == chat.current_id else ""
                yield ListChoice(target_id, text, f"{NAMES[node.role]}{' ★' if node.bookmarked else ''}{here}")

    def draw_activity(self) -> None:
        super().draw_activity()
        if (step := self._replaying.get(self.chat)) is not None:
            self.status.activity = f"replaying turn {step.number} of {step.total} · esc stops"
