"""OpenAI's chat format: `{"messages": [{role, content}]}` in each line, or a list of messages alone.

Rows for preference training have a chosen and a rejected way to go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from treechat.formats.document import Document, ImportReport
from treechat.formats.importers.content_blocks import add_blocks
from treechat.formats.importers.importer import Importer
from treechat.formats.importers.preferences import TAKEN, Shape, Way, has_pair, ways_of
from treechat.formats.reading.inputs import Input
from treechat.formats.reading.lenient_fields import dict_of, first_text, list_of, text_of
from treechat.formats.reading.records import read_records
from treechat.formats.trees.content import Content
from treechat.formats.trees.prefix_rows import Rows, Said
from treechat.tree import Role

ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
TOOLS = ("tool", "function")


def recognises(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    messages = value.get("messages")
    if _is_message(value) or (isinstance(messages, list) and any(map(_is_message, messages))):
        return True
    return has_pair(value, PAIRS)


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.get("role") in (*ROLES, *TOOLS)
        and bool({"content", "tool_calls"} & set(value))
    )


PAIRS = Shape(
    _is_message,
    lambda message: message["role"] in ("assistant", *TOOLS),
    lambda text: {"role": "user", "content": text},
    lambda text: {"role": "assistant", "content": text},
)


def read(file: Input, report: ImportReport) -> Iterator[Document]:
    rows = Rows("openai", report)
    alone: list[Any] = []
    for where, value in read_records(file, report):
        record = dict_of(value)
        messages = list_of(record.get("messages"))
        ways = ways_of(record, messages, PAIRS)
        if ways or isinstance(record.get("messages"), list):
            rest = {key: item for key, item in record.items() if key not in ("messages", *(TAKEN if ways else ()))}
            for way in ways or [Way(messages)]:
                row = _row(way.messages, record, where, report)
                yield from rows.add(row, where, {"row": rest, "preference": way.preference}, way.preference == "chosen")
        elif "role" in record:
            alone.append(record)
        else:
            report.fail(where, "it has no messages")
    if alone:
        yield from rows.add(_row(alone, {}, file.name, report), file.name)
    yield from rows.rest(file.name)


def _row(messages: list[Any], record: dict[str, Any], where: str, report: ImportReport) -> list[Said]:
    row: list[Said] = []
    after_tool = False
    names: dict[str, str] = {}
    for number, message in enumerate(map(dict_of, messages), 1):
        role = text_of(message.get("role"))
        if role not in (*ROLES, *TOOLS):
            report.drop(where, f"message {number} has the role {role[:40] or 'none'}; it is left out")
            continue
        content = _content(message, names, f"{where}, message {number}", report)
        if row and row[-1].role == "assistant" and (role in TOOLS or (role == "assistant" and after_tool)):
            # Calls, their results and what was said then are one turn.
            row[-1].content.extend(content)
        else:
            meta = {"name": message.get("name"), "weight": message.get("weight")}
            model = first_text(record, "model") or None
            row.append(Said(ROLES.get(role, "assistant"), content, {} if role in TOOLS else meta, model))
        after_tool = role in TOOLS
    return row


def _content(message: dict[str, Any], names: dict[str, str], where: str, report: ImportReport) -> Content:
    content = Content()
    content_said = message.get("content")
    if reasoning := first_text(message, "reasoning_content", "reasoning"):
        content.think(reasoning)
    if message.get("role") in TOOLS:
        inner = Content()
        unknown = add_blocks(inner, content_said)
        name = first_text(message, "name") or names.get(text_of(message.get("tool_call_id")), "")
        content.result(name, inner.text, id=message.get("tool_call_id"))
    else:
        unknown = add_blocks(content, content_said)
        content.say(text_of(message.get("refusal")))
    calls = [dict_of(call) for call in list_of(message.get("tool_calls"))]
    if isinstance(message.get("function_call"), dict):
        calls.append({"function": message["function_call"]})
    for call in calls:
        function = dict_of(call.get("function")) or dict_of(call.get("custom"))
        name = text_of(function.get("name"))
        names[text_of(call.get("id"))] = name
        content.call(name, function.get("arguments", function.get("input")), id=call.get("id"))
    for kind in unknown:
        report.drop(where, f"content of the unknown type {kind}; its text was kept")
    return content


IMPORTER = Importer("openai", "OpenAI chat", recognises, read)
