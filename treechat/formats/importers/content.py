"""What one message says: its readable text, and everything that it is made of, in order."""

from __future__ import annotations

import json
from typing import Any

from treechat.formats.reading.lenient import dict_of, first_text, json_in, kept, list_of, text_of
from treechat.tree import preview_of

_TEXT_KEYS = ("text", "content", "value", "result", "output", "summary", "error", "message")


class Content:
    """A message's text is built from its parts; a part that is no text leaves a placeholder such as `[image: a.png]`.

    parts: what is kept in the node's meta, each with a `type` (`thoughts`, `call`, `result`, `image`, `file`, `audio`
    or the source's own name) and what is known of it.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.parts: list[dict[str, Any]] = []

    @property
    def text(self) -> str:
        return "\n\n".join(self.texts)

    @property
    def meta(self) -> dict[str, Any]:
        return {"parts": self.parts} if self.parts else {}

    @property
    def identity(self) -> list[str]:
        """What tells it from another of the same text. The names that a program gave its calls count for nothing."""
        return [
            json.dumps({key: value for key, value in part.items() if key != "id"}, sort_keys=True)
            for part in self.parts
        ]

    def __bool__(self) -> bool:
        return bool(self.texts or self.parts)

    def say(self, text: str) -> None:
        if text:
            self.texts.append(text)

    def think(self, text: str, **more: Any) -> None:
        self._mark("[thoughts]", "thoughts", text=text, **more)

    def call(self, name: str, arguments: Any, **more: Any) -> None:
        name = name or "a tool"
        self._mark(f"[called {name}]", "call", name=name, arguments=arguments, **more)

    def result(self, name: str, text: str, **more: Any) -> None:
        name = name or "a tool"
        self._mark(f"[result of {name}]", "result", name=name, text=text, **more)

    def attach(self, kind: str, name: str, text: str = "", **more: Any) -> None:
        """A file, image or audio. text: what is written in it, as far as the source took that out."""
        self._mark(f"[{kind}: {name}]" if name else f"[{kind}]", kind, name=name, **more)
        self.say(text)

    def fail(self, **error: Any) -> None:
        """What went wrong instead of a reply, or in it; it is shown where nothing else was said."""
        if not self.texts:
            self.texts.append(f"[error: {preview_of(words_in([*error.values()]))}]")
        self.keep("error", **error)

    def keep(self, kind: str, **more: Any) -> None:
        """A part that nobody needs to see."""
        self.parts.append({"type": kind} | {key: kept(value) for key, value in more.items() if value not in (None, "")})

    def extend(self, other: Content) -> None:
        for text in other.texts:
            if not (text == "[thoughts]" and self.texts[-1:] == [text]):
                self.texts.append(text)
        self.parts.extend(other.parts)

    def _mark(self, placeholder: str, kind: str, **more: Any) -> None:
        if placeholder != "[thoughts]" or self.texts[-1:] != [placeholder]:
            self.texts.append(placeholder)
        self.keep(kind, **more)


def words_in(value: Any, depth: int = 6) -> str:
    """Whatever text stands in a value of unknown shape, at its usual places."""
    if isinstance(value, str) or not depth:
        return text_of(value)
    if isinstance(value, list):
        return "\n".join(filter(None, (words_in(item, depth - 1) for item in value)))
    record = dict_of(value)
    return next(filter(None, (words_in(record.get(key), depth - 1) for key in (*_TEXT_KEYS, "parts"))), "")


def add_blocks(content: Content, value: Any) -> list[str]:
    """Add the content of a message as most chat interfaces write it, a string or a list of typed blocks.

    Returns the types of blocks that are unknown; what text they have is added all the same.
    """
    unknown = []
    for block in [value] if isinstance(value, str | dict) else list_of(value):
        if isinstance(block, str):
            content.say(block)
        elif not _add_block(content, dict_of(block)):
            kind = text_of(dict_of(block).get("type")) or type(block).__name__
            unknown.append(kind)
            content.keep(kind, raw=block)
            content.say(words_in(block))
    return unknown


def _add_block(content: Content, block: dict[str, Any]) -> bool:
    match block.get("type"):
        case "text" | "input_text" | "output_text":
            # Data sets write `value`, and one interface an object with a `value`.
            content.say(first_text(block, "text", "value") or first_text(dict_of(block.get("text")), "value"))
        case "refusal":
            content.say(text_of(block.get("refusal")))
        case "thinking" | "think" | "reasoning":
            content.think(first_text(block, "thinking", "think", "text", "value") or words_in(block.get("summary")))
        case "redacted_thinking":
            content.think("", raw=block)
        case "tool_use" | "toolCall" | "server_tool_use" | "function_call":
            arguments = block.get("input", block.get("arguments"))
            content.call(text_of(block.get("name")), arguments, id=block.get("id"))
        case "tool_call":
            call = dict_of(block.get("tool_call")) or dict_of(json_in(block.get("value"))) or block
            content.call(text_of(call.get("name")), call.get("args", call.get("arguments")), id=call.get("id"))
            if text_of(call.get("output")):
                content.result(text_of(call.get("name")), text_of(call.get("output")))
        case "tool_result" | "web_search_tool_result" | "function_call_output":
            text = words_in(block.get("content", block.get("output")))
            error = True if block.get("is_error") is True else None
            content.result(text_of(block.get("name")), text, id=block.get("tool_use_id"), error=error)
        case "image_url" | "input_image":
            url = block.get("image_url", block.get("value"))
            url = url if isinstance(url, str) else first_text(dict_of(url), "url")
            content.attach("image", "" if url.startswith("data:") else url, url=url)
        case "image" | "image_file":
            content.attach("image", first_text(block, "name", "file_name"), raw=block)
        case "input_audio" | "audio":
            content.attach("audio", first_text(block, "name"), raw=block)
        case "file" | "document" | "input_file":
            name = first_text(block, "name", "title", "filename") or first_text(dict_of(block.get("file")), "filename")
            content.attach("file", name, raw=block)
        case _:
            return False
    return True
