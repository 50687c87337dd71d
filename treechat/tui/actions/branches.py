"""Fork inside a message, compare two branches, and copy or replay a branch elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice

from treechat.chat.forking import MessageToken, alternatives, fork_at, tokens_of
from treechat.chat.grafting import fits_under, graft, rebase
from treechat.chat.session import Chat
from treechat.errors import TreechatError
from treechat.tree import Role
from treechat.tui.safe_text import without_markdown
from treechat.tui.screens.branch_diff import compare
from treechat.tui.screens.compare import CompareScreen
from treechat.tui.screens.pick import MAX_CHOICES, PickScreen
from treechat.tui.screens.split import SplitScreen
from treechat.tui.screens.tokens import ForkPoint, TokenScreen
from treechat.tui.widgets.choice_list import ListChoice
from treechat.tui.window import Window

ROOT = ""
"""The target's id that stands for a new root."""

NAMES: dict[Role, str] = {"user": "you", "assistant": "reply", "system": "system"}

_WORDS = re.compile(r"\s*\S+|\s+$")


class BranchActions(Window):
    """The actions that make a branch out of another one, or compare two."""

    # Forking inside a message

    def action_tokens(self) -> None:
        node, chat = self.cursor, self.chat
        if node is None:
            return
        if node.role != "assistant":
            self.say("Only a reply has sampled tokens: s splits your own messages")
            return
        pieces = tokens_of(chat, node.id)
        if not pieces:
            self.say("This reply has no tokens")
            return

        def done(fork: ForkPoint | None) -> None:
            if fork is not None:
                self.replies.follow(fork_at(chat, node.id, fork.kept_len, fork.alternative))

        screen = TokenScreen(pieces, chat.ready_model().stop_ids, lambda index: alternatives(chat, node.id, index))
        self.ask(screen, done)

    def action_split(self) -> None:
        """Fork after a chosen word: continue a reply from there; put the words of another message into the composer."""
        node = self.cursor
        if node is None:
            return
        if node.role == "assistant":
            starts, words = words_of(tokens_of(self.chat, node.id))
        else:
            words = _WORDS.findall(self.chat.text(node.id))
            starts = []
        if len(words) < 2:
            self.say("This message has one word: it cannot be split")
            return

        def done(index: int | None) -> None:
            if index is None:
                return
            if node.role == "assistant":
                self.replies.follow(fork_at(self.chat, node.id, starts[index]))
            else:
                self.take_for_editing(node.id)
                self.composer.put("".join(words[:index]))
                self.to_composer()

        then = "continues from the kept words" if node.role == "assistant" else "edits the kept words"
        self.ask(SplitScreen(words, then), done)

    # Comparing

    def action_compare(self) -> None:
        """Compare the current branch with the one under the cursor.

        If the cursor is on the current branch, compare with the next or previous sibling at the nearest fork.
        """
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
        head = tree[tree.run_of(node_id)[0]]
        here = "  ← here" if node_id == self.chat.current_id else ""
        return f"{tree[node_id].label or head.label or without_markdown(head.preview)}{here}"

    # Copying and replaying

    def action_graft(self) -> None:
        """Copy the branch under the cursor below another node."""
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
            self.say(f"{num:,} message{'s' if num != 1 else ''} copied · u undoes it")

        self._pick(f"Copy {num:,} message{'s' if num != 1 else ''} under", node_id, "copies", done)

    def action_rebase(self) -> None:
        """Send the user's messages from the cursor to the end of the visible branch again below another node."""
        chat, node_id = self.chat, self.branch_id
        if node_id is None:
            return
        view_id = self.view_id if self.view_id and chat.tree.is_ancestor(node_id, self.view_id) else None
        path = chat.tree.path(self.leaf_of(view_id or node_id))
        turns = [i for i in path[path.index(node_id) :] if chat.tree[i].role == "user"]
        if not turns:
            self.say("None of your turns follow here: select one, or a message above one")
            return

        def done(target_id: str | None) -> None:
            self.replies.follow_replay(chat, rebase(chat, turns, target_id))

        num = len(turns)
        self._pick(f"Replay {num:,} turn{'s' if num != 1 else ''} under", turns[0], "replays", done)

    def _pick(self, title: str, node_id: str, verb: str, done: Callable[[str | None], None]) -> None:
        """Ask for a target node.

        title: of the list.
        node_id: the message that must be able to follow the target.
        verb: the effect of enter, as the list shows it.
        done: called with the target's id, None for a new root.
        """
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
            yield ListChoice(ROOT, "(the beginning)", "a separate tree in this conversation")
        for target_id in dict.fromkeys((*path, *marked, *tree.walk())):
            node = tree[target_id]
            preview = without_markdown(node.preview)
            text = f"{node.label}: {preview}" if node.label else preview or f"({node.status})"
            if all(word in text.casefold() for word in words) and fits_under(chat, role, target_id, chat.is_text_tree):
                here = " · here" if target_id == chat.current_id else ""
                yield ListChoice(target_id, text, f"{NAMES[node.role]}{' ★' if node.bookmarked else ''}{here}")


def words_of(pieces: list[MessageToken]) -> tuple[list[int], list[str]]:
    """Return the token indices at which words begin, and the words. A token without text belongs to the word before."""
    starts: list[int] = []
    words: list[str] = []
    for index, piece in enumerate(pieces):
        begins = piece.text[:1].isspace() or (bool(words) and words[-1][-1:].isspace() and not piece.text.isspace())
        if not words or (begins and piece.text and not words[-1].isspace()):
            starts.append(index)
            words.append(piece.text)
        else:
            words[-1] += piece.text
    return starts, words
