"""What stands in a message beside its words: thoughts, calls of tools and their results, to be shown folded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from treechat.tree import THOUGHT_TAGS

_PLACEHOLDER = re.compile(r"(?:\A|(?<=\n\n))\[(thoughts|called [^\n]*|result of [^\n]*)\](?=\n\n|\Z)")
_LONE_END = re.compile(rf"^(?:{'|'.join(map(re.escape, THOUGHT_TAGS.values()))})\s*$", re.MULTILINE)
_PLACED = ("call", "result", "image", "file", "audio")
"""Parts, beside thoughts, that have a placeholder of their own in the text."""


class Aside(NamedTuple):
    """title: `thoughts`, `called python`, `result of python`. is_markdown: else its text is shown as it is."""

    title: str
    text: str
    is_markdown: bool = False


Piece = str | Aside


def pieces_of(text: str, is_reply: bool, parts: Sequence[Mapping[str, Any]] = ()) -> list[Piece]:
    """A message in its order: words, and what is folded. parts: what an import kept, each at its placeholder."""
    pieces: list[Piece] = []
    while is_reply and (found := split_thoughts(text)) is not None:
        thoughts, text = found
        if thoughts:
            pieces.append(Aside("thoughts", thoughts, True))
    pieces += _placed(text, parts) if parts else [text]
    return [piece for piece in pieces if isinstance(piece, Aside) or piece.strip()]


def may_have_parts(text: str) -> bool:
    """Whether there is a placeholder that an import may have left."""
    return "[" in text and _PLACEHOLDER.search(text) is not None


def split_thoughts(text: str) -> tuple[str, str] | None:
    """The thoughts that a text begins with, and what is said behind them; None where it begins with none.

    Thoughts that were cut off have no end. Some templates have the beginning tag in the prompt, so that only the end is
    in the text, on a line of its own.
    """
    text = text.lstrip()
    begin = next((tag for tag in THOUGHT_TAGS if text.startswith(tag)), None)
    if begin is not None:
        thoughts, _, said = text.removeprefix(begin).partition(THOUGHT_TAGS[begin])
        return thoughts.strip(), said.lstrip()
    if not any(tag in text for tag in THOUGHT_TAGS.values()):
        return None
    end = _LONE_END.search(text)
    if end is None or any(tag in text[: end.start()] for tag in THOUGHT_TAGS):
        return None
    return text[: end.start()].strip(), text[end.end() :].lstrip()


def _placed(text: str, parts: Sequence[Mapping[str, Any]]) -> list[Piece]:
    pieces: list[Piece] = []
    index = end = 0
    for match in _PLACEHOLDER.finditer(text):
        found = _find(match.group(1), parts, index)
        if found is not None:
            aside, index = found
            pieces += [text[end : match.start()].strip("\n"), aside]
            end = match.end()
    return [*pieces, text[end:].strip("\n")]


def _find(title: str, parts: Sequence[Mapping[str, Any]], index: int) -> tuple[Aside, int] | None:
    """The part behind a placeholder, at `index` or later, and the index behind it."""
    for here in range(index, len(parts)):
        part = parts[here]
        if title == "thoughts" == part.get("type"):
            return _thoughts(parts, here)
        if part.get("type") == "call" and title == f"called {part.get('name')}":
            return Aside(title, _shown(part.get("arguments"))), here + 1
        if part.get("type") == "result" and title == f"result of {part.get('name')}":
            return Aside(title, _shown(part.get("text"))), here + 1
    return None


def _thoughts(parts: Sequence[Mapping[str, Any]], index: int) -> tuple[Aside, int]:
    """Thoughts that follow each other share one placeholder."""
    texts = []
    while index < len(parts) and parts[index].get("type") not in _PLACED:
        if parts[index].get("type") == "thoughts":
            texts.append(_shown(parts[index].get("text")))
        index += 1
    return Aside("thoughts", "\n\n".join(filter(None, texts)), True), index


def _shown(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return json.dumps(value, ensure_ascii=False, indent=2)
    except RecursionError:
        return "(nested too deep to be shown)"
