"""Add typed content blocks, as most chat interfaces write them, to a message's content."""

from __future__ import annotations

from typing import Any

from treechat.formats.reading.lenient_fields import dict_of, first_text, json_in, list_of, text_of
from treechat.formats.trees.content import Content, words_in


def add_blocks(content: Content, value: Any) -> list[str]:
    """Add a message's content, a string or a list of typed blocks.

    Return the unknown types of blocks; the text of such blocks is added too.
    """
    unknown_kinds = []
    for block in [value] if isinstance(value, str | dict) else list_of(value):
        if isinstance(block, str):
            content.add_text(block)
        elif not _add_block(content, dict_of(block)):
            kind = text_of(dict_of(block).get("type")) or type(block).__name__
            unknown_kinds.append(kind)
            content.add_part(kind, raw=block)
            content.add_text(words_in(block))
    return unknown_kinds


def _add_block(content: Content, block: dict[str, Any]) -> bool:
    """Add one block; return False if its type is unknown."""
    match block.get("type"):
        case "text" | "input_text" | "output_text":
            # Data sets write `value`, and one program writes an object with a `value`.
            content.add_text(first_text(block, "text", "value") or first_text(dict_of(block.get("text")), "value"))
        case "refusal":
            content.add_text(text_of(block.get("refusal")))
        case "thinking" | "think" | "reasoning":
            content.add_thoughts(
                first_text(block, "thinking", "think", "text", "value") or words_in(block.get("summary"))
            )
        case "redacted_thinking":
            content.add_thoughts("", raw=block)
        case "tool_use" | "toolCall" | "server_tool_use" | "function_call":
            arguments = block.get("input", block.get("arguments"))
            content.add_call(text_of(block.get("name")), arguments, id=block.get("id"))
        case "tool_call":
            call = dict_of(block.get("tool_call")) or dict_of(json_in(block.get("value"))) or block
            content.add_call(text_of(call.get("name")), call.get("args", call.get("arguments")), id=call.get("id"))
            if text_of(call.get("output")):
                content.add_result(text_of(call.get("name")), text_of(call.get("output")))
        case "tool_result" | "web_search_tool_result" | "function_call_output":
            text = words_in(block.get("content", block.get("output")))
            error = True if block.get("is_error") is True else None
            content.add_result(text_of(block.get("name")), text, id=block.get("tool_use_id"), error=error)
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
