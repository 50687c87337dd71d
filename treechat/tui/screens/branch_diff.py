"""Two branches held against each other: what they share, then turn by turn the words that differ. Draws nothing."""

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

LONG = 2_000
"""Words of one text from which on frequent words no longer count as common: the time would grow with the square."""


class DiffPart(NamedTuple):
    """A stretch of text; `is_own` where the other side does not have it."""

    text: str
    is_own: bool


@dataclass(frozen=True, slots=True)
class TurnPair:
    """The n-th messages behind the fork; a side that has ended is None, and then the other is all its own."""

    left: tuple[DiffPart, ...] | None
    right: tuple[DiffPart, ...] | None
    left_role: Role | None
    right_role: Role | None

    @property
    def is_same(self) -> bool:
        return self.left == self.right


@dataclass(frozen=True, slots=True)
class Comparison:
    """num_common: messages that both branches have; pairs: what comes below."""

    num_common: int
    pairs: tuple[TurnPair, ...]


def diff_words(left: str, right: str) -> tuple[tuple[DiffPart, ...], tuple[DiffPart, ...]]:
    """Both texts as parts that alternate between shared and own; the parts joined are the text."""
    a, b = _WORDS.findall(left), _WORDS.findall(right)
    matcher = SequenceMatcher(_is_space, a, b, autojunk=max(len(a), len(b)) > LONG)
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
    """The branches that end at the two nodes. Reads the texts below their fork."""
    tree = chat.tree
    left, right = tree.path(left_id), tree.path(right_id)
    num_common = next(
        (i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
    )
    texts = chat.texts([*left[num_common:], *right[num_common:]])
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
