"""ShareGPT: `{"conversations": [{"from": "human" | "gpt" | "system", "value"}]}`, in lines or in an array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from treechat.formats.content import Content, add_blocks, words_in
from treechat.formats.document import Document, ImportReport
from treechat.formats.flat import Rows, Said
from treechat.formats.importer import Importer
from treechat.formats.inputs import Input
from treechat.formats.loose import dict_of, first_text, list_of
from treechat.formats.records import read_records
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
    turns = value.get("conversations") if isinstance(value, dict) else None
    return isinstance(turns, list) and any(isinstance(turn, dict) and {"from", "value"} <= set(turn) for turn in turns)


def read(file: Input, report: ImportReport) -> Iterator[Document]:
    rows = Rows("sharegpt", report)
    for where, value in read_records(file, report):
        record = dict_of(value)
        if isinstance(record.get("conversations"), list):
            rest = {key: item for key, item in record.items() if key not in ("conversations", "system")}
            yield from rows.add(_row(record, where, report), where, {"row": rest})
        else:
            report.fail(where, "it has no conversations")
    yield from rows.rest(file.name)


def _row(record: dict[str, Any], where: str, report: ImportReport) -> list[Said]:
    row: list[Said] = []
    if system := first_text(record, "system"):
        row.append(Said("system", _content(system)))
    after_tool = False
    for number, turn in enumerate(map(dict_of, list_of(record["conversations"])), 1):
        sender = first_text(turn, "from", "role")
        said = turn.get("value", turn.get("content"))
        if sender not in (*ROLES, *TOOLS):
            report.drop(where, f"message {number} is from {sender[:40] or 'nobody'}; it is left out")
            continue
        content = _content(said)
        if sender in ("function_call", "tool_call"):
            content = Content()
            content.call("", said)
        elif sender in TOOLS:
            content = Content()
            content.result("", words_in(said))
        if row and row[-1].role == "assistant" and (sender in TOOLS or (after_tool and ROLES[sender] == "assistant")):
            row[-1].content.extend(content)
        else:
            row.append(Said(ROLES.get(sender, "assistant"), content, {"weight": turn.get("weight")}))
        after_tool = sender in TOOLS
    return row


def _content(said: Any) -> Content:
    content = Content()
    add_blocks(content, said)
    return content


IMPORTER = Importer("sharegpt", "ShareGPT", recognises, read)
