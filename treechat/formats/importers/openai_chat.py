"""Import OpenAI's chat format: `{"messages": [{role, content}]}` per line, or a bare list of messages.

Rows for preference training have a chosen and a rejected continuation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from treechat.formats.document import Document, ImportReport
from treechat.formats.importers.content_blocks import add_blocks
from treechat.formats.importers.importer import Importer
from treechat.formats.importers.preferences import MESSAGE_FIELDS, MessageForm, PreferenceRow, has_pair, preference_rows
from treechat.formats.reading.inputs import Input
from treechat.formats.reading.lenient_fields import dict_of, first_text, list_of, text_of
from treechat.formats.reading.records import read_records
from treechat.formats.trees.content import Content
from treechat.formats.trees.prefix_rows import PrefixRows, RowMessage
from treechat.tree import Role

ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
TOOLS = ("tool", "function")


def recognises(value: Any) -> bool:
    """Return whether the record has this format."""
    if not isinstance(value, dict):
        return False
    messages = value.get("messages")
    if _is_message(value) or (isinstance(messages, list) and any(map(_is_message, messages))):
        return True
    return has_pair(value, MESSAGE_FORM)


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.get("role") in (*ROLES, *TOOLS)
        and bool({"content", "tool_calls"} & set(value))
    )


MESSAGE_FORM = MessageForm(
    _is_message,
    lambda message: message["role"] in ("assistant", *TOOLS),
    lambda text: {"role": "user", "content": text},
    lambda text: {"role": "assistant", "content": text},
)


def read(file: Input, report: ImportReport) -> Iterator[Document]:
    """Yield the conversations of a file. Raises OSError and FormatError."""
    rows = PrefixRows("openai", report)
    single_messages: list[Any] = []
    for place, value in read_records(file, report):
        record = dict_of(value)
        messages = list_of(record.get("messages"))
        pairs = preference_rows(record, messages, MESSAGE_FORM)
        if pairs or isinstance(record.get("messages"), list):
            own_fields = ("messages", *(MESSAGE_FIELDS if pairs else ()))
            extra = {key: item for key, item in record.items() if key not in own_fields}
            for side in pairs or [PreferenceRow(messages)]:
                row = _row(side.messages, record, place, report)
                meta = {"row": extra, "preference": side.preference}
                yield from rows.add(row, place, meta, side.preference == "chosen")
        elif "role" in record:
            single_messages.append(record)
        else:
            report.fail(place, "it has no messages")
    if single_messages:
        yield from rows.add(_row(single_messages, {}, file.name, report), file.name)
    yield from rows.flush(file.name)


def _row(messages: list[Any], record: dict[str, Any], place: str, report: ImportReport) -> list[RowMessage]:
    row: list[RowMessage] = []
    after_tool = False
    names: dict[str, str] = {}
    for number, message in enumerate(map(dict_of, messages), 1):
        role = text_of(message.get("role"))
        if role not in (*ROLES, *TOOLS):
            report.drop(place, f"message {number} has the role {role[:40] or 'none'}; it is left out")
            continue
        content = _content(message, names, f"{place}, message {number}", report)
        if row and row[-1].role == "assistant" and (role in TOOLS or (role == "assistant" and after_tool)):
            # Calls, their results and the following text are one turn.
            row[-1].content.extend(content)
        else:
            meta = {"name": message.get("name"), "weight": message.get("weight")}
            model = first_text(record, "model") or None
            row.append(RowMessage(ROLES.get(role, "assistant"), content, {} if role in TOOLS else meta, model))
        after_tool = role in TOOLS
    return row


def _content(message: dict[str, Any], names: dict[str, str], place: str, report: ImportReport) -> Content:
    content = Content()
    value = message.get("content")
    if reasoning := first_text(message, "reasoning_content", "reasoning"):
        content.add_thoughts(reasoning)
    if message.get("role") in TOOLS:
        inner = Content()
        unknown_kinds = add_blocks(inner, value)
        name = first_text(message, "name") or names.get(text_of(message.get("tool_call_id")), "")
        content.add_result(name, inner.text, id=message.get("tool_call_id"))
    else:
        unknown_kinds = add_blocks(content, value)
        content.add_text(text_of(message.get("refusal")))
    calls = [dict_of(call) for call in list_of(message.get("tool_calls"))]
    if isinstance(message.get("function_call"), dict):
        calls.append({"function": message["function_call"]})
    for call in calls:
        function = dict_of(call.get("function")) or dict_of(call.get("custom"))
        name = text_of(function.get("name"))
        names[text_of(call.get("id"))] = name
        content.add_call(name, function.get("arguments", function.get("input")), id=call.get("id"))
    for kind in unknown_kinds:
        report.drop(place, f"content of the unknown type {kind}; its text was kept")
    return content


IMPORTER = Importer("openai", "OpenAI chat", recognises, read)
