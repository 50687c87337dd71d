"""Split a message into its text and the parts that are folded: thoughts, tool calls and tool results."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from treechat.tree import THOUGHT_TAGS

_PLACEHOLDER = re.compile(r"(?:\A|(?<=\n\n))\[(thoughts|called [^\n]*|result of [^\n]*)\](?=\n\n|\Z)")
_LONE_END = re.compile(rf"^(?:{'|'.join(map(re.escape, THOUGHT_TAGS.values()))})\s*$", re.MULTILINE)
_TYPES_WITH_PLACEHOLDER = ("call", "result", "image", "file", "audio")
"""Types of parts, besides thoughts, that have their own placeholder in the text."""

MAX_THOUGHTS = 20
"""Leading thoughts that are split off one text; further ones stay text."""


class FoldedPart(NamedTuple):
    """A part that is folded to one line.

    title: `thoughts`, `called python`, `result of python`.
    text: its content; empty if an import kept none.
    is_markdown: render the text as Markdown, else as plain text.
    """

    title: str
    text: str
    is_markdown: bool = False


MessagePart = str | FoldedPart


def split_message(text: str, is_reply: bool, imported: Sequence[Mapping[str, Any]] = ()) -> list[MessagePart]:
    """Split a message, in order, into text and folded parts.

    text: the stored text; it has a placeholder for each imported part.
    is_reply: leading thoughts are split off replies only.
    imported: the parts that an import kept.
    """
    thoughts_first: list[FoldedPart] = []
    while is_reply and len(thoughts_first) < MAX_THOUGHTS and (found := split_thoughts(text)) is not None:
        thoughts_text, text = found
        thoughts_first.append(FoldedPart("thoughts", thoughts_text, True))
        is_reply = text.startswith(tuple(THOUGHT_TAGS))
    parts: list[MessagePart] = [thoughts for thoughts in thoughts_first if thoughts.text]
    parts += _at_placeholders(text, imported) if imported else [text]
    return [part for part in parts if isinstance(part, FoldedPart) or part.strip()]


def may_have_parts(text: str) -> bool:
    """Return whether the text has a placeholder that an import may have left."""
    return "[" in text and _PLACEHOLDER.search(text) is not None


def split_thoughts(text: str) -> tuple[str, str] | None:
    """Split (leading thoughts, remaining text); None if the text does not begin with thoughts.

    Thoughts that were cut off have no end tag. Some templates put the start tag into the prompt; then the text has only
    the end tag, alone on a line.
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


def _at_placeholders(text: str, imported: Sequence[Mapping[str, Any]]) -> list[MessagePart]:
    """Put the imported parts at their placeholders, in order. A placeholder without a part stays text."""
    places: dict[str, list[int]] = {}
    for index, part in enumerate(imported):
        places.setdefault(_title(part), []).append(index)
    parts: list[MessagePart] = []
    index = end = 0
    for match in _PLACEHOLDER.finditer(text):
        title = match.group(1)
        here = places.get(title, [])
        at = bisect_left(here, index)
        if at < len(here):
            folded, index = _folded_part(title, imported, here[at])
            parts += [text[end : match.start()].strip("\n"), folded]
            end = match.end()
    return [*parts, text[end:].strip("\n")]


def _title(part: Mapping[str, Any]) -> str:
    match part.get("type"):
        case "thoughts":
            return "thoughts"
        case "call":
            return f"called {part.get('name')}"
        case "result":
            return f"result of {part.get('name')}"
    return ""


def _folded_part(title: str, parts: Sequence[Mapping[str, Any]], index: int) -> tuple[FoldedPart, int]:
    """Return the folded part at `index`, and the index after it."""
    part = parts[index]
    if title == "thoughts":
        return _thoughts(parts, index)
    return FoldedPart(title, _as_text(part.get("arguments" if part.get("type") == "call" else "text"))), index + 1


def _thoughts(parts: Sequence[Mapping[str, Any]], index: int) -> tuple[FoldedPart, int]:
    """Join consecutive thoughts, which share one placeholder; return them and the index after them."""
    texts = []
    while index < len(parts) and parts[index].get("type") not in _TYPES_WITH_PLACEHOLDER:
        if parts[index].get("type") == "thoughts":
            texts.append(_as_text(parts[index].get("text")))
        index += 1
    return FoldedPart("thoughts", "\n\n".join(filter(None, texts)), True), index


def _as_text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return json.dumps(value, ensure_ascii=False, indent=2)
    except RecursionError:
        return "(nested too deep to be shown)"
