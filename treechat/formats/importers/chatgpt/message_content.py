"""Convert the content of one ChatGPT message, by its content type."""

from __future__ import annotations

from typing import Any

from treechat.formats.importers.chatgpt.citations import without_marks
from treechat.formats.reading.lenient_fields import dict_of, first_text, list_of, text_of
from treechat.formats.trees.content import Content, words_in

CONTEXTS = ("user_editable_context", "model_editable_context")
"""Content types of instructions that are part of each request and are never visible as a message."""


def content_of(message: dict[str, Any], unknown_kinds: set[str]) -> Content:
    """Return the content of a message. Unknown content types are added to `unknown_kinds`."""
    content = Content()
    record = dict_of(message.get("content"))
    kind = text_of(record.get("content_type"))
    names = {
        text_of(item.get("id")): text_of(item.get("name"))
        for item in map(dict_of, list_of(dict_of(message.get("metadata")).get("attachments")))
    }
    match kind:
        case "text" | "multimodal_text" | "":
            _add_parts(content, message, record, names, unknown_kinds)
        case "code":
            text = first_text(record, "text")
            recipient = text_of(message.get("recipient"))
            language = text_of(record.get("language"))
            if recipient not in ("", "all"):
                content.add_call(recipient, text, language=language)
            elif text:
                content.add_text(f"```{'' if language == 'unknown' else language}\n{text}\n```")
        case "execution_output" | "system_error":
            content.add_result(_author_name(message), words_in(record))
        case "tether_quote":
            details = {"title": record.get("title"), "url": record.get("url")}
            content.add_result(_author_name(message), words_in(record), **details)
        case "tether_browsing_display":
            content.add_result(_author_name(message), first_text(record, "result", "summary"))
        case "thoughts":
            thoughts = [dict_of(item) for item in list_of(record.get("thoughts"))]
            texts = [text for item in thoughts for text in (item.get("summary"), item.get("content"))]
            content.add_thoughts("\n\n".join(filter(None, map(text_of, texts))))
        case "reasoning_recap":
            content.add_part("recap", text=words_in(record))
        case _ if kind in CONTEXTS:
            content.add_part(kind, raw=record)
        case _:
            unknown_kinds.add(kind)
            content.add_part(kind, raw=record)
            content.add_text(words_in(record))
    for file_id, name in names.items():
        content.attach("file", name or file_id, id=file_id)
    return content


def _author_name(message: dict[str, Any]) -> str:
    return text_of(dict_of(message.get("author")).get("name"))


def _add_parts(
    content: Content, message: dict[str, Any], record: dict[str, Any], names: dict[str, str], unknown_kinds: set[str]
) -> None:
    texts = []
    for part in list_of(record.get("parts")) or [record.get("text")]:
        if isinstance(part, str):
            texts.append(without_marks(part, dict_of(message.get("metadata"))))
        elif isinstance(part, dict):
            _add_object(content, part, names, unknown_kinds)
    text = "\n\n".join(filter(None, texts))
    role = text_of(dict_of(message.get("author")).get("role"))
    recipient = text_of(message.get("recipient"))
    if not text:
        return
    if role == "assistant" and recipient not in ("", "all"):
        content.add_call(recipient, text)
    elif role == "assistant" and message.get("channel") == "analysis":
        content.add_thoughts(text)
    elif role == "tool":
        content.add_result(_author_name(message), text)
    else:
        # The text follows the images, as in the source.
        content.add_text(text)


def _add_object(content: Content, part: dict[str, Any], names: dict[str, str], unknown_kinds: set[str]) -> None:
    kind = text_of(part.get("content_type"))
    pointer = first_text(part, "asset_pointer") or first_text(dict_of(part.get("audio_asset_pointer")), "asset_pointer")
    file_id = pointer.rpartition("//")[2]
    name = names.pop(file_id, "") or file_id
    match kind:
        case "image_asset_pointer":
            content.attach("image", name, raw=part)
        case "audio_transcription":
            content.add_part(kind, raw=part)
            content.add_text(text_of(part.get("text")))
        case "audio_asset_pointer" | "real_time_user_audio_video_asset_pointer":
            content.attach("audio", name, raw=part)
        case "video_container_asset_pointer":
            content.attach("video", name, raw=part)
        case _:
            if kind:
                unknown_kinds.add(kind)
            content.add_part(kind or "object", raw=part)
            content.add_text(words_in(part))
