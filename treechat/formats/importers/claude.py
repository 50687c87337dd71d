"""Import Claude's data export, and one conversation as its web API returns it: an object with `chat_messages`."""

from __future__ import annotations

from typing import Any

from treechat.formats.document import Document, ImportReport
from treechat.formats.importers.content_blocks import add_blocks
from treechat.formats.importers.importer import Importer, read_by_record
from treechat.formats.reading.lenient_fields import dict_of, first_text, id_of, list_of, seconds, text_of
from treechat.formats.trees.content import Content
from treechat.formats.trees.draft import Draft
from treechat.formats.trees.sibling_order import order_siblings
from treechat.tree import Role

SENDERS: dict[str, Role] = {"human": "user", "user": "user", "assistant": "assistant"}
NO_PARENT = ("00000000-0000-4000-8000-000000000000", "00000000-0000-0000-0000-000000000000")


def recognises(value: Any) -> bool:
    """Return whether the record has this format."""
    return isinstance(value, dict) and isinstance(value.get("chat_messages"), list)


def convert(value: Any, place: str, report: ImportReport) -> Document | None:
    """Convert one conversation; return None and report the reason if it has no messages."""
    record = dict_of(value)
    title = first_text(record, "name", "title")
    place = f"{place} ({title[:60]})" if title else place
    messages: dict[str, dict[str, Any]] = {}
    for number, message in enumerate(list_of(record.get("chat_messages")), 1):
        if not isinstance(message, dict):
            report.drop(place, f"message {number} is not an object")
            continue
        message_id = id_of(message.get("uuid")) or f"message-{number}"
        if message_id in messages:
            report.drop(place, f"message {message_id} occurs twice; the first one is kept")
        else:
            messages[message_id] = message
    if not messages:
        report.drop(place, "it has no messages")
        return None
    source_id = first_text(record, "uuid", "id") or next(iter(messages))
    conversation_times = seconds(record.get("created_at")), seconds(record.get("updated_at"))
    draft = Draft("claude", source_id, title, *conversation_times, meta={"summary": record.get("summary")})
    parents = _parents(messages)
    message_times = {message_id: seconds(message.get("created_at")) for message_id, message in messages.items()}
    unknown_kinds: set[str] = set()
    speakers = _speakers(messages)
    for message_id in order_siblings(parents, {}, message_times):
        if draft.is_full:
            report.fail(place, "it has too many messages; the rest is left out")
            break
        message, model = messages[message_id], first_text(record, "model")
        _add_message(draft, message_id, parents[message_id], speakers[message_id], message, model, unknown_kinds)
    if num_unsigned := sum(text_of(message.get("sender")) not in SENDERS for message in messages.values()):
        report.drop(place, f"no known sender in {num_unsigned:,} messages; they are read as user and assistant in turn")
    for kind in sorted(unknown_kinds):
        report.drop(place, f"content of the unknown type {kind}; its text was kept")
    draft.current = id_of(record.get("current_leaf_message_uuid"))
    return draft.document(report, place)


def _parents(messages: dict[str, dict[str, Any]]) -> dict[str, str | None]:
    """Return parents by `parent_message_uuid`. Older exports lack it; they are a single branch in the array's order."""
    if any(id_of(message.get("parent_message_uuid")) for message in messages.values()):
        parents = {i: id_of(message.get("parent_message_uuid")) for i, message in messages.items()}
        return {i: None if parent in NO_PARENT else parent for i, parent in parents.items()}
    return dict(zip(messages, (None, *messages), strict=False))


def _speakers(messages: dict[str, dict[str, Any]]) -> dict[str, Role]:
    """Return the role of each message. One without a known sender alternates with the previous message of the array."""
    speakers: dict[str, Role] = {}
    previous: Role = "assistant"
    for message_id, message in messages.items():
        previous = SENDERS.get(text_of(message.get("sender")), "assistant" if previous == "user" else "user")
        speakers[message_id] = previous
    return speakers


def _add_message(
    draft: Draft,
    message_id: str,
    parent_id: str | None,
    role: Role,
    message: dict[str, Any],
    model: str,
    unknown_kinds: set[str],
) -> None:
    content = Content()
    blocks = list_of(message.get("content"))
    unknown_kinds.update(add_blocks(content, blocks))
    if not any(dict_of(block).get("type") == "text" and dict_of(block).get("text") for block in blocks):
        # Old exports have the text here and no blocks; in the web API this field is always empty.
        content.add_text(text_of(message.get("text")))
    for attachment in map(dict_of, list_of(message.get("attachments"))):
        name = first_text(attachment, "file_name", "name")
        content.attach("file", name, text_of(attachment.get("extracted_content")), size=attachment.get("file_size"))
    for file in map(dict_of, list_of(message.get("files")) or list_of(message.get("files_v2"))):
        kind = "image" if file.get("file_kind") == "image" else "file"
        content.attach(kind, first_text(file, "file_name", "name", "file_uuid"), id=file.get("file_uuid"))
    stop_reason = text_of(message.get("stop_reason"))
    draft.add(
        message_id,
        parent_id,
        role,
        content,
        seconds(message.get("created_at")),
        model=first_text(message, "model") or model or None,
        finish_reason={"max_tokens": "length", "stop_sequence": "stop", "end_turn": "stop"}.get(stop_reason),
        status="stopped" if stop_reason == "user_canceled" else "complete",
    )


IMPORTER = Importer("claude", "Claude", recognises, read_by_record(convert))
