"""ShareGPT: `{"conversations": [{"from": "human" | "gpt" | "system", "value"}]}`, in lines or in an array.

Rows for preference training have a `chosen` and a `rejected` turn beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from treechat.formats.document import Document, ImportReport
from treechat.formats.importers.content_blocks import add_blocks
from treechat.formats.importers.importer import Importer
from treechat.formats.importers.preferences import TAKEN, Shape, Way, ways_of
from treechat.formats.reading.inputs import Input
from treechat.formats.reading.lenient_fields import dict_of, first_text
from treechat.formats.reading.records import read_records
from treechat.formats.trees.content import Content, words_in
from treechat.formats.trees.prefix_rows import Rows, Said
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
    return isinstance(turns, list) and any(map(_is_turn, turns))


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and {"from", "value"} <= set(value)


PAIRS = Shape(
    _is_turn,
    lambda turn: turn["from"] in TOOLS or ROLES.get(turn["from"]) == "assistant",
    lambda text: {"from": "human", "value": text},
    lambda text: {"from": "gpt", "value": text},
)


def read(file: Input, report: ImportReport) -> Iterator[Document]:
    rows = Rows("sharegpt", report)
    for where, value in read_records(file, report):
        record = dict_of(value)
        turns = record.get("conversations")
        if not isinstance(turns, list):
            report.fail(where, "it has no conversations")
            continue
        system = first_text(record, "system")
        taken = ("conversations", "system")
        ways = ways_of(record, turns, PAIRS)
        for way in ways or [Way(turns)]:
            rest = {key: item for key, item in record.items() if key not in (*taken, *(TAKEN if ways else ()))}
            row = _row(way.messages, system, where, report)
            yield from rows.add(row, where, {"row": rest, "preference": way.preference}, way.preference == "chosen")
    yield from rows.rest(file.name)


def _row(turns: list[Any], system: str, where: str, report: ImportReport) -> list[Said]:
    row: list[Said] = []
    if system:
        row.append(Said("system", _content(system)))
    after_tool = False
    for number, turn in enumerate(map(dict_of, turns), 1):
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
