"""Import LibreChat's export of one conversation: a flat list, or nested `children` if `recursive` is set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from treechat.formats.document import Document, ImportReport
from treechat.formats.importers.content_blocks import add_blocks
from treechat.formats.importers.importer import Importer, read_by_record
from treechat.formats.reading.lenient_fields import dict_of, first_text, id_of, list_of, seconds, text_of
from treechat.formats.trees.content import Content
from treechat.formats.trees.draft import MAX_NODES, Draft
from treechat.formats.trees.sibling_order import order_siblings

NO_PARENT = "00000000-0000-0000-0000-000000000000"


def recognises(value: Any) -> bool:
    """Return whether the record has this format."""
    return isinstance(value, dict) and isinstance(value.get("conversationId"), str) and _messages(value) is not None


def _messages(record: dict[str, Any]) -> list[Any] | None:
    return next((record[key] for key in ("messages", "messagesTree") if isinstance(record.get(key), list)), None)


def convert(value: Any, place: str, report: ImportReport) -> Document | None:
    """Convert one conversation; return None and report the reason if it has no messages."""
    record = dict_of(value)
    title = first_text(record, "title")
    place = f"{place} ({title[:60]})" if title else place
    messages: dict[str, dict[str, Any]] = {}
    parents: dict[str, str | None] = {}
    for message_id, parent_id, message in _walk(_messages(record) or [], place, report):
        if message_id in messages:
            report.drop(place, f"message {message_id} occurs twice; the first one is kept")
        elif len(messages) == MAX_NODES:
            report.fail(place, f"more than {MAX_NODES:,} messages; the rest is left out")
            break
        else:
            messages[message_id], parents[message_id] = message, parent_id
    if not messages:
        report.drop(place, "it has no messages")
        return None
    source_id = first_text(record, "conversationId") or next(iter(messages))
    options = dict_of(record.get("options"))
    meta = {"endpoint": record.get("endpoint"), "options": options}
    draft = Draft(
        "librechat", source_id, title, seconds(record.get("createdAt")), seconds(record.get("updatedAt")), meta
    )
    times = {message_id: seconds(message.get("createdAt")) for message_id, message in messages.items()}
    system_id = draft.add_system_prompt(first_text(options, "promptPrefix", "system"))
    unknown_kinds: set[str] = set()
    ids = order_siblings(parents, {}, times)
    model = first_text(options, "model")
    for message_id in ids:
        parent_id = parents.pop(message_id)
        container_id = system_id if parent_id is None else parent_id
        _add_message(draft, message_id, container_id, messages.pop(message_id), model, unknown_kinds)
    # Release them: the draft copies its messages, and there may be a million.
    del ids, parents, messages, times
    for kind in sorted(unknown_kinds):
        report.drop(place, f"content of the unknown type {kind}; its text was kept")
    return draft.document(report, place)


def _walk(messages: list[Any], place: str, report: ImportReport) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    """Yield the id, parent id and record of every message, from a flat or nested list."""
    num_messages = 0
    stack: list[tuple[Any, str | None]] = [(message, None) for message in reversed(messages)]
    while stack:
        message, container_id = stack.pop()
        num_messages += 1
        if not isinstance(message, dict):
            report.drop(place, f"message {num_messages} is not an object")
            continue
        message_id = id_of(message.get("messageId")) or f"message-{num_messages}"
        # In a nested list the containing message is the parent, whatever `parentMessageId` is.
        parent_id = container_id if container_id is not None else id_of(message.get("parentMessageId"))
        yield message_id, None if parent_id == NO_PARENT else parent_id, message
        stack.extend((child, message_id) for child in reversed(list_of(message.get("children"))))


def _add_message(
    draft: Draft, message_id: str, parent_id: str | None, message: dict[str, Any], model: str, unknown_kinds: set[str]
) -> None:
    content = Content()
    unknown_kinds.update(add_blocks(content, list_of(message.get("content"))))
    if not content.texts:
        content.add_text(text_of(message.get("text")))
    for file in map(dict_of, [*list_of(message.get("files")), *list_of(message.get("attachments"))]):
        kind = "image" if text_of(file.get("type")).startswith("image/") else "file"
        content.attach(kind, first_text(file, "filename", "name", "file_id"), id=file.get("file_id"))
    is_user = message.get("isCreatedByUser")
    if not isinstance(is_user, bool):
        is_user = text_of(message.get("sender")).lower() == "user"
    is_failed, is_unfinished = message.get("error") is True, message.get("unfinished") is True
    draft.add(
        message_id,
        parent_id,
        "user" if is_user else "assistant",
        content,
        seconds(message.get("createdAt")),
        model=first_text(message, "model") or model or None,
        finish_reason=first_text(message, "finish_reason") or None,
        status="failed" if is_failed else "stopped" if is_unfinished else "complete",
    )


IMPORTER = Importer("librechat", "LibreChat", recognises, read_by_record(convert))
