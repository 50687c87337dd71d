"""Compare two branches: their common part, then the differing words of each turn. Draws nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import NamedTuple

from treechat.chat.session import Chat
from treechat.tree import Role

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")

LONG_TEXT_WORDS = 2_000
"""Above this number of words, frequent words are ignored in matching: the time would grow quadratically."""


class DiffPart(NamedTuple):
    """A part of a text; `is_own` if the other side does not have it."""

    text: str
    is_own: bool


@dataclass(frozen=True, slots=True)
class TurnPair:
    """The n-th messages after the fork.

    left: the parts of the left message; None if that branch has ended.
    right: the parts of the right message; None if that branch has ended.
    left_role: None if that branch has ended.
    right_role: None if that branch has ended.
    """

    left: tuple[DiffPart, ...] | None
    right: tuple[DiffPart, ...] | None
    left_role: Role | None
    right_role: Role | None

    @property
    def is_same(self) -> bool:
        return self.left == self.right


@dataclass(frozen=True, slots=True)
class Comparison:
    """num_common: messages that both branches share. pairs: the messages after the fork."""

    num_common: int
    pairs: tuple[TurnPair, ...]


def diff_words(left: str, right: str) -> tuple[tuple[DiffPart, ...], tuple[DiffPart, ...]]:
    """Split both texts into alternating shared and own parts. Joined, the parts are the text."""
    a, b = _WORDS.findall(left), _WORDS.findall(right)
    matcher = SequenceMatcher(_is_space, a, b, autojunk=max(len(a), len(b)) > LONG_TEXT_WORDS)
    left_parts: list[DiffPart] = []
    right_parts: list[DiffPart] = []
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        _append(left_parts, a[i1:i2], tag != "equal")
        _append(right_parts, b[j1:j2], tag != "equal")
    return tuple(left_parts), tuple(right_parts)


def _is_space(word: str) -> bool:
    return word.isspace()


def _append(parts: list[DiffPart], words: Sequence[str], is_own: bool) -> None:
    if words:
        parts.append(DiffPart("".join(words), is_own))


def compare(chat: Chat, left_id: str, right_id: str) -> Comparison:
    """Compare the branches that end at two nodes. Reads the texts below their fork."""
    tree = chat.tree
    left, right = tree.path(left_id), tree.path(right_id)
    num_common = next(
        (i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
    )
    texts = chat.nodes.texts([*left[num_common:], *right[num_common:]])
    pairs = []
    for a, b in zip_longest(left[num_common:], right[num_common:]):
        left_parts: tuple[DiffPart, ...] | None = (DiffPart(texts[a], True),) if a is not None else None
        right_parts: tuple[DiffPart, ...] | None = (DiffPart(texts[b], True),) if b is not None else None
        if a is not None and b is not None and tree[a].role == tree[b].role:
            left_parts, right_parts = diff_words(texts[a], texts[b])
        pairs.append(
            TurnPair(
                left_parts,
                right_parts,
                tree[a].role if a is not None else None,
                tree[b].role if b is not None else None,
            )
        )
    return Comparison(num_common, tuple(pairs))
