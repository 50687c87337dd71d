"""Import ShareGPT: `{"conversations": [{"from": "human" | "gpt" | "system", "value"}]}`, in lines or in an array.

Rows for preference training also have a `chosen` and a `rejected` turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from treechat.formats.document import Document, ImportReport
from treechat.formats.importers.content_blocks import add_blocks
from treechat.formats.importers.importer import Importer
from treechat.formats.importers.preferences import MESSAGE_FIELDS, MessageForm, PreferenceRow, preference_rows
from treechat.formats.reading.inputs import Input
from treechat.formats.reading.lenient_fields import dict_of, first_text
from treechat.formats.reading.records import read_records
from treechat.formats.trees.content import Content, words_in
from treechat.formats.trees.prefix_rows import PrefixRows, RowMessage
from treechat.tree import Role

ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "system": "system",
}
TOOLS = ("function_call", "observation", "tool", "tool_call", "tool_response")


def recognises(value: Any) -> bool:
    """Return whether the record has this format."""
    turns = value.get("conversations") if isinstance(value, dict) else None
    return isinstance(turns, list) and any(map(_is_turn, turns))


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and {"from", "value"} <= set(value)


MESSAGE_FORM = MessageForm(
    _is_turn,
    lambda turn: turn["from"] in TOOLS or ROLES.get(turn["from"]) == "assistant",
    lambda text: {"from": "human", "value": text},
    lambda text: {"from": "gpt", "value": text},
)


def read(file: Input, report: ImportReport) -> Iterator[Document]:
    """Yield the conversations of a file. Raises OSError and FormatError."""
    rows = PrefixRows("sharegpt", report)
    for place, value in read_records(file, report):
        record = dict_of(value)
        turns = record.get("conversations")
        if not isinstance(turns, list):
            report.fail(place, "it has no conversations")
            continue
        system = first_text(record, "system")
        pairs = preference_rows(record, turns, MESSAGE_FORM)
        own_fields = ("conversations", "system", *(MESSAGE_FIELDS if pairs else ()))
        for side in pairs or [PreferenceRow(turns)]:
            extra = {key: item for key, item in record.items() if key not in own_fields}
            row = _row(side.messages, system, place, report)
            meta = {"row": extra, "preference": side.preference}
            yield from rows.add(row, place, meta, side.preference == "chosen")
    yield from rows.flush(file.name)


def _row(turns: list[Any], system: str, place: str, report: ImportReport) -> list[RowMessage]:
    row: list[RowMessage] = []
    if system:
        row.append(RowMessage("system", _content(system)))
    after_tool = False
    for number, turn in enumerate(map(dict_of, turns), 1):
        sender = first_text(turn, "from", "role")
        value = turn.get("value", turn.get("content"))
        if sender not in (*ROLES, *TOOLS):
            report.drop(place, f"message {number} is from {sender[:40] or 'nobody'}; it is left out")
            continue
        content = _content(value)
        if sender in ("function_call", "tool_call"):
            content = Content()
            content.add_call("", value)
        elif sender in TOOLS:
            content = Content()
            content.add_result("", words_in(value))
        if row and row[-1].role == "assistant" and (sender in TOOLS or (after_tool and ROLES[sender] == "assistant")):
            row[-1].content.extend(content)
        else:
            row.append(RowMessage(ROLES.get(sender, "assistant"), content, {"weight": turn.get("weight")}))
        after_tool = sender in TOOLS
    return row


def _content(value: Any) -> Content:
    content = Content()
    add_blocks(content, value)
    return content


IMPORTER = Importer("sharegpt", "ShareGPT", recognises, read)
