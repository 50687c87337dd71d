"""The content of one message: its readable text, and its parts in order."""

from __future__ import annotations

import json
from typing import Any

from treechat.formats.reading.lenient_fields import dict_of, meta_value, text_of
from treechat.tree import preview_of

_TEXT_KEYS = ("text", "content", "value", "result", "output", "summary", "error", "message")


class Content:
    """The text and parts of one message, added in order.

    A part that is not text leaves a placeholder such as `[image: a.png]` in the text.

    texts: paragraphs of the text.
    parts: stored in the node's meta. Each has a `type` (`thoughts`, `call`, `result`, `image`, `file`, `audio`, or the
        source's own name) and its known fields.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.parts: list[dict[str, Any]] = []

    @property
    def text(self) -> str:
        """The readable text: paragraphs with a blank line between them."""
        return "\n\n".join(self.texts)

    @property
    def meta(self) -> dict[str, Any]:
        """The parts, as stored in the node's meta; empty if there are none."""
        return {"parts": self.parts} if self.parts else {}

    @property
    def identity(self) -> list[str]:
        """The data that distinguishes it from content with the same text. Ids of calls are excluded."""
        return [
            json.dumps({key: value for key, value in part.items() if key != "id"}, sort_keys=True)
            for part in self.parts
        ]

    def __bool__(self) -> bool:
        return bool(self.texts or self.parts)

    def add_text(self, text: str) -> None:
        """Add a paragraph, unless it is empty."""
        if text:
            self.texts.append(text)

    def add_thoughts(self, text: str, **details: Any) -> None:
        """Add reasoning: a placeholder in the text, and a part with the reasoning text."""
        self._add_placeholder("[thoughts]", "thoughts", text=text, **details)

    def add_call(self, name: str, arguments: Any, **details: Any) -> None:
        """Add a tool call: a placeholder in the text, and a part with name and arguments."""
        name = name or "a tool"
        self._add_placeholder(f"[called {name}]", "call", name=name, arguments=arguments, **details)

    def add_result(self, name: str, text: str, **details: Any) -> None:
        """Add the result of a tool: a placeholder in the text, and a part with the result."""
        name = name or "a tool"
        self._add_placeholder(f"[result of {name}]", "result", name=name, text=text, **details)

    def attach(self, kind: str, name: str, text: str = "", **details: Any) -> None:
        """Add a file, image or audio.

        kind: type of the part.
        name: file name, may be empty.
        text: text of the file, if the source has extracted it.
        details: further fields of the part.
        """
        self._add_placeholder(f"[{kind}: {name}]" if name else f"[{kind}]", kind, name=name, **details)
        self.add_text(text)

    def add_error(self, **error: Any) -> None:
        """Add an error of a reply; it is visible only if there is no text."""
        if not self.texts:
            self.texts.append(f"[error: {preview_of(words_in([*error.values()]))}]")
        self.add_part("error", **error)

    def add_part(self, kind: str, **details: Any) -> None:
        """Add a part that is not visible in the text."""
        self.parts.append(
            {"type": kind} | {key: meta_value(value) for key, value in details.items() if value not in (None, "")}
        )

    def extend(self, other: Content) -> None:
        """Append other content; consecutive placeholders for thoughts become one."""
        for text in other.texts:
            if not (text == "[thoughts]" and self.texts[-1:] == [text]):
                self.texts.append(text)
        self.parts.extend(other.parts)

    def _add_placeholder(self, placeholder: str, kind: str, **details: Any) -> None:
        """Add a part and its placeholder; consecutive placeholders for thoughts become one."""
        if placeholder != "[thoughts]" or self.texts[-1:] != [placeholder]:
            self.texts.append(placeholder)
        self.add_part(kind, **details)


def words_in(value: Any, depth: int = 6) -> str:
    """Return the text in a value of unknown structure, found under the usual keys, at most `depth` levels deep."""
    if isinstance(value, str) or not depth:
        return text_of(value)
    if isinstance(value, list):
        return "\n".join(filter(None, (words_in(item, depth - 1) for item in value)))
    record = dict_of(value)
    return next(filter(None, (words_in(record.get(key), depth - 1) for key in (*_TEXT_KEYS, "parts"))), "")
