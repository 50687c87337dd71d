"""Forks inside a message: at a token that the token view shows, or where a word begins."""

from __future__ import annotations

import re

from treechat.chat.forking import Piece, alternatives, fork_at, pieces_of
from treechat.tui.actions.replies import Generating
from treechat.tui.screens.split import SplitScreen
from treechat.tui.screens.tokens import ForkPoint, TokenScreen

_WORDS = re.compile(r"\s*\S+|\s+$")


class Splitting(Generating):
    """The actions that look into a message."""

    def action_tokens(self) -> None:
        node, chat = self.cursor, self.chat
        if node is None:
            return
        if node.role != "assistant":
            self.say("Only a reply has tokens that a model chose: s splits a message of yours")
            return
        pieces = pieces_of(chat, node.id)
        if not pieces:
            self.say("This reply has no tokens")
            return

        def done(fork: ForkPoint | None) -> None:
            if fork is not None:
                self.follow(fork_at(chat, node.id, fork.kept_len, fork.alternative))

        screen = TokenScreen(pieces, chat.ready_model().stop_ids, lambda index: alternatives(chat, node.id, index))
        self.ask(screen, done)

    def action_split(self) -> None:
        """A reply goes on from the words that are kept; of one's own message they go to the composer."""
        node = self.cursor
        if node is None:
            return
        if node.role == "assistant":
            starts, words = words_of(pieces_of(self.chat, node.id))
        else:
            words = _WORDS.findall(self.chat.text(node.id))
            starts = []
        if len(words) < 2:
            self.say("There is no place to split: this message is one word")
            return

        def done(index: int | None) -> None:
            if index is None:
                return
            if node.role == "assistant":
                self.follow(fork_at(self.chat, node.id, starts[index]))
            else:
                self.take_for_editing(node.id)
                self.composer.put("".join(words[:index]))
                self.to_composer()

        then = "goes on from what is kept" if node.role == "assistant" else "edits what is kept"
        self.ask(SplitScreen(words, then), done)


def words_of(pieces: list[Piece]) -> tuple[list[int], list[str]]:
    """Where words begin, as indices of tokens, and the words; tokens without text belong to the word before them."""
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
