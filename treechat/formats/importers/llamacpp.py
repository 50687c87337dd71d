"""Import llama.cpp's web UI: lines of a session and its messages, or older objects with `conv` and `messages`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from treechat.formats.document import Document, ImportReport
from treechat.formats.importers.content_blocks import add_blocks
from treechat.formats.importers.importer import Importer
from treechat.formats.reading.inputs import Input
from treechat.formats.reading.lenient_fields import dict_of, first_text, id_of, list_of, seconds, text_of
from treechat.formats.reading.records import read_records
from treechat.formats.trees.content import Content
from treechat.formats.trees.draft import MAX_NODES, Draft
from treechat.formats.trees.joined_turns import MessageKind, SourceMessage, TurnJoiner
from treechat.formats.trees.sibling_order import ordered_forest

ROLES: dict[str, MessageKind] = {"user": "user", "system": "system", "assistant": "part", "tool": "part"}


def recognises(value: Any) -> bool:
    """Return whether the record has this format."""
    if not isinstance(value, dict):
        return False
    is_session = value.get("type") == "session" and "currNode" in value
    return is_session or (isinstance(value.get("conv"), dict) and isinstance(value.get("messages"), list))


def read(file: Input, report: ImportReport) -> Iterator[Document]:
    """Yield the conversations of a file. Raises OSError and FormatError."""
    session: dict[str, Any] = {}
    session_place = file.name
    messages: list[Any] = []
    for place, value in read_records(file, report):
        record = dict_of(value)
        if record.get("type") == "message" and isinstance(record.get("message"), dict):
            if len(messages) < MAX_NODES:
                messages.append(record["message"])
            else:
                report.fail(place, f"more than {MAX_NODES:,} messages in one conversation; it is left out")
        elif recognises(record):
            if session or messages:
                yield from _convert_session(session, messages, session_place, report)
            session, session_place, messages = record, place, []
            if isinstance(record.get("conv"), dict):
                yield from _convert_session(record["conv"], record["messages"], place, report)
                session = {}
        else:
            report.fail(place, "it is neither a session nor a message")
    if session or messages:
        yield from _convert_session(session, messages, session_place, report)


def _convert_session(session: dict[str, Any], raw: list[Any], place: str, report: ImportReport) -> Iterator[Document]:
    title = first_text(session, "name", "title")
    place = f"{place} ({title[:60]})" if title else place
    messages: dict[str, dict[str, Any]] = {}
    for number, message in enumerate(raw[:MAX_NODES], 1):
        message_id = id_of(dict_of(message).get("id")) or f"message-{number}"
        if not isinstance(message, dict):
            report.drop(place, f"message {number} is not an object")
        elif message_id in messages:
            report.drop(place, f"message {message_id} occurs twice; the first one is kept")
        else:
            messages[message_id] = message
    if len(raw) > MAX_NODES:
        report.fail(place, f"more than {MAX_NODES:,} messages; the rest is left out")
    listed_children = {
        i: [id_of(child) for child in list_of(message.get("children"))] for i, message in messages.items()
    }
    parents = {i: id_of(message.get("parent")) for i, message in messages.items()}
    times = {i: seconds(message.get("timestamp")) for i, message in messages.items()}
    missing_parents = {parent for parent in parents.values() if parent is not None and parent not in messages}
    if "-1" in missing_parents or (len(missing_parents) == 1 and None not in parents.values()):
        # A single branch is saved without its empty root.
        parents = {i: None if parent in missing_parents else parent for i, parent in parents.items()}
    forest = ordered_forest(parents, listed_children, times, report, place)
    source_id = id_of(session.get("id")) or next(iter(messages), "")
    draft = Draft("llamacpp", source_id, title, updated_at=seconds(session.get("lastModified")))
    joiner = TurnJoiner(draft, place, report)
    unknown_kinds: set[str] = set()
    joiner.join(
        forest.children, lambda i: _kind_of(messages[i]), lambda i: _source_message(i, messages[i], unknown_kinds)
    )
    for kind in sorted(unknown_kinds):
        report.drop(place, f"content of the unknown type {kind}; its text was kept")
    current = id_of(session.get("currNode"))
    draft.current = joiner.node_of(current, forest.parents) or (current if current not in messages else None)
    if len(draft):
        yield draft.document(report, place)
    else:
        report.drop(place, "it has no messages")


def _kind_of(message: dict[str, Any]) -> MessageKind:
    if message.get("type") == "root":
        return "nothing"
    return ROLES.get(text_of(message.get("role")), "part")


def _source_message(message_id: str, message: dict[str, Any], unknown_kinds: set[str]) -> SourceMessage:
    content = Content()
    if thoughts := first_text(message, "reasoningContent", "thinking", "reasoning_content"):
        content.add_thoughts(thoughts)
    role = message.get("role")
    if role == "tool":
        content.add_result(first_text(message, "toolName", "name"), text_of(message.get("content")))
    else:
        unknown_kinds.update(add_blocks(content, message.get("content")))
    calls = _calls(message.get("toolCalls"))
    for call in calls:
        function = dict_of(call.get("function"))
        content.add_call(text_of(function.get("name")), function.get("arguments"), id=call.get("id"))
    for extra in map(dict_of, list_of(message.get("extra"))):
        kind = text_of(extra.get("type")).lower()
        kind = next((name for name in ("image", "audio") if name in kind), "file")
        content.attach(kind, first_text(extra, "name"), first_text(extra, "content"), raw=_without_content(extra))
    return SourceMessage(
        message_id,
        _kind_of(message),
        content,
        seconds(message.get("timestamp")),
        first_text(message, "model") or None,
        ends_turn=role == "assistant" and not calls,
    )


def _calls(value: Any) -> list[dict[str, Any]]:
    """Return the tool calls, which are a string of JSON in the message."""
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return [{"function": {"arguments": value}}]
    return [dict_of(call) for call in list_of(value)]


def _without_content(extra: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in extra.items() if key != "content"}


IMPORTER = Importer("llamacpp", "llama.cpp's web UI", recognises, read)
