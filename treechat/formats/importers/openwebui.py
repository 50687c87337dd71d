"""Import Open WebUI's export, an array of chats with a `history` of messages by id, or its database, webui.db."""

from __future__ import annotations

import html
import re
import sqlite3
from collections.abc import Iterator
from typing import Any, NamedTuple

from treechat.errors import FormatError
from treechat.formats.document import Document, ImportReport
from treechat.formats.importers.content_blocks import add_blocks
from treechat.formats.importers.importer import Importer, read_by_record
from treechat.formats.reading.inputs import Input
from treechat.formats.reading.lenient_fields import dict_of, first_text, id_of, list_of, seconds, text_of
from treechat.formats.reading.records import parse_record
from treechat.formats.reading.sqlite_source import SqliteSource, open_sqlite
from treechat.formats.trees.content import Content, words_in
from treechat.formats.trees.draft import MAX_NODES, Draft
from treechat.formats.trees.sibling_order import fill_parents, order_siblings
from treechat.tree import Role

ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}
CHAT_COLUMNS = ("id", "title", "chat", "created_at", "updated_at", "archived", "folder_id")
OPEN, CLOSE = '<details type="', "</details>"
_ATTRIBUTE = re.compile(r'([\w-]{1,40})="([^"]*)"')
_SUMMARY = re.compile(r"\s*<summary>[^<]*</summary>\n?")
_QUOTE = re.compile(r"^> ?", re.MULTILINE)


def recognises(value: Any) -> bool:
    """Return whether the record has this format."""
    return isinstance(value, dict) and bool(_history(value) or list_of(dict_of(value.get("chat")).get("messages")))


def _history(record: dict[str, Any]) -> dict[str, Any]:
    chat = dict_of(record.get("chat")) or record
    return dict_of(dict_of(chat.get("history")).get("messages"))


def convert(value: Any, place: str, report: ImportReport) -> Document | None:
    """Convert one conversation; return None and report the reason if it has no messages."""
    record = dict_of(value)
    chat = dict_of(record.get("chat")) or record
    title = first_text(record, "title") or first_text(chat, "title")
    place = f"{place} ({title[:60]})" if title else place
    messages = _messages(record, chat, place, report)
    if not messages:
        report.drop(place, "it has no messages")
        return None
    created_at = seconds(record.get("created_at")) or seconds(chat.get("timestamp"))
    source_id = first_text(record, "id") or first_text(chat, "id") or next(iter(messages))
    meta = {key: chat.get(key) for key in ("models", "tags")}
    meta |= {"folder": record.get("folder"), "archived": True if record.get("archived") in (True, 1) else None}
    draft = Draft("openwebui", source_id, title, created_at, seconds(record.get("updated_at")), meta)
    listed_children = {i: list_of(message.get("childrenIds")) for i, message in messages.items()}
    parents = fill_parents({i: id_of(message.get("parentId")) for i, message in messages.items()}, listed_children)
    times = {i: seconds(message.get("timestamp")) for i, message in messages.items()}
    system = first_text(chat, "system") or first_text(dict_of(chat.get("params")), "system")
    has_system_root = any(parents[i] is None and message.get("role") == "system" for i, message in messages.items())
    system_id = draft.add_system_prompt("" if has_system_root else system)
    for message_id in order_siblings(parents, listed_children, times):
        parent_id = parents[message_id]
        _add_message(
            draft, message_id, system_id if parent_id is None else parent_id, messages[message_id], place, report
        )
    draft.current = id_of(dict_of(chat.get("history")).get("currentId"))
    return draft.document(report, place)


def _messages(
    record: dict[str, Any], chat: dict[str, Any], place: str, report: ImportReport
) -> dict[str, dict[str, Any]]:
    """Return the messages by id. Chats without a history are a single branch."""
    by_id: dict[str, dict[str, Any]] = {}
    previous = None
    history = _history(record)
    flat_messages = {} if history else dict(enumerate(list_of(chat.get("messages")), 1))
    for key, message in (history or flat_messages).items():
        message_id = str(key) if history else id_of(dict_of(message).get("id")) or f"message-{key}"
        if not isinstance(message, dict):
            report.drop(place, f"message {message_id} is not an object")
        elif len(by_id) == MAX_NODES:
            report.fail(place, f"more than {MAX_NODES:,} messages; the rest is left out")
            break
        elif message_id not in by_id:
            parent_link = {} if history else {"parentId": message.get("parentId", previous)}
            by_id[message_id] = message | parent_link
            previous = message_id
    return by_id


def _add_message(
    draft: Draft, message_id: str, parent_id: str | None, message: dict[str, Any], place: str, report: ImportReport
) -> None:
    content = Content()
    value = message.get("content")
    if isinstance(value, str):
        output = _from_output(list_of(message.get("output")))
        if output is not None and output.plain_text.split() == _plain_text(value).split():
            content = output.content
        else:
            _add_text(content, value)
    else:
        for kind in add_blocks(content, value):
            report.drop(place, f"content of the unknown type {kind}; its text was kept")
    for file in map(dict_of, list_of(message.get("files"))):
        kind = "image" if file.get("type") == "image" else "file"
        name = first_text(file, "name") or first_text(dict_of(file.get("file")), "filename")
        content.attach(kind, name, raw=file)
    role = text_of(message.get("role"))
    if role not in ROLES:
        report.drop(place, f"message {message_id} has the role {role[:40] or 'none'}; it is taken as the assistant's")
    error = message.get("error")
    if error:
        content.add_error(raw=error)
    draft.add(
        message_id,
        parent_id,
        ROLES.get(role, "assistant"),
        content,
        seconds(message.get("timestamp")),
        model=first_text(message, "model", "modelName") or None,
        status="failed" if error else "interrupted" if message.get("done") is False else "complete",
    )


class _OutputContent(NamedTuple):
    """A message from its `output`.

    content: its text and parts.
    plain_text: its text without placeholders.
    """

    content: Content
    plain_text: str


def _from_output(items: list[Any]) -> _OutputContent | None:
    """Return the message from `output`, where newer versions store each part separately; None if it is empty."""
    content, names = Content(), dict[str, str]()
    texts = []
    for item in map(dict_of, items):
        call_id = text_of(item.get("call_id"))
        match item.get("type"):
            case "message":
                texts.append(words_in(item.get("content")))
                content.add_text(texts[-1])
            case "reasoning":
                thoughts = words_in(item.get("content")) or words_in(item.get("summary"))
                content.add_thoughts(thoughts, seconds=item.get("duration"))
            case "function_call":
                names[call_id] = text_of(item.get("name"))
                content.add_call(names[call_id], item.get("arguments"), id=call_id)
            case "function_call_output":
                content.add_result(names.get(call_id, ""), words_in(item.get("output")), id=call_id)
            case kind:
                content.add_part(text_of(kind) or "output", raw=item)
    return _OutputContent(content, "\n".join(texts)) if items else None


def _plain_text(text: str) -> str:
    """Return the text without its HTML details. It differs from the text in `output` if the user edited the message."""
    value = Content()
    _add_text(value, text)
    return "\n".join(text for text in value.texts if not text.startswith(("[thoughts]", "[called ", "[result of ")))


def _add_text(content: Content, text: str) -> None:
    """Add a text in which reasoning and tool calls are `<details>` elements of escaped HTML."""
    position = 0
    while (start := text.find(OPEN, position)) >= 0:
        head_end = text.find(">", start)
        end = text.find(CLOSE, head_end) if head_end >= 0 else -1
        if end < 0:
            break
        content.add_text(text[position:start].strip("\n"))
        _add_details(content, text[start:head_end], text[head_end + 1 : end])
        position = end + len(CLOSE)
    tail = text[position:]
    content.add_text(tail.lstrip("\n") if position else tail)


def _add_details(content: Content, head: str, body: str) -> None:
    attributes = {key: html.unescape(value) for key, value in _ATTRIBUTE.findall(head)}
    inner = _QUOTE.sub("", html.unescape(_SUMMARY.sub("", body, count=1))).strip()
    match attributes.get("type"):
        case "reasoning":
            content.add_thoughts(inner, seconds=attributes.get("duration"))
        case "tool_calls":
            content.add_call(attributes.get("name", ""), attributes.get("arguments"), id=attributes.get("id"))
            if "result" in attributes:
                content.add_result(attributes.get("name", ""), attributes["result"], id=attributes.get("id"))
        case kind:
            content.add_part(kind or "details", text=inner, attributes=attributes)
            content.add_text(inner)


def recognises_database(source: SqliteSource) -> bool:
    """Return whether the database is Open WebUI's."""
    return source.has("chat", "id", "chat", "user_id")


def read(file: Input, report: ImportReport) -> Iterator[Document]:
    """Yield the conversations of a file. Raises OSError and FormatError."""
    if not file.is_sqlite:
        yield from read_by_record(convert)(file, report)
        return
    with open_sqlite(file) as source:
        if not recognises_database(source):
            raise FormatError(f"{file.name} is a database, but not Open WebUI's", "Its file name is webui.db")
        folders = {row["id"]: row["name"] for row in source.rows("folder", ("id", "name"))}
        # Query chats one by one: a single one may be too large to read.
        for number, key in enumerate(source.rows("chat", ("id",), "ORDER BY rowid"), 1):
            place = f"{file.name}, chat {number}"
            try:
                row = next(source.rows("chat", CHAT_COLUMNS, "WHERE id = ?", (key["id"],)), None)
            except sqlite3.DataError as error:
                report.fail(place, f"it cannot be read ({error})")
                continue
            if row is None:
                report.fail(place, "it cannot be found by its id; the database may be damaged")
                continue
            record = parse_record(text_of(row["chat"]).encode(), place, report)
            if record is not None:
                chat_record = row | {"chat": dict_of(record.value), "folder": folders.get(row["folder_id"])}
                document = convert(chat_record, place, report)
                if document is not None:
                    yield document


IMPORTER = Importer("openwebui", "Open WebUI", recognises, read, recognises_database)
