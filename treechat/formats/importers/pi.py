"""pi's sessions: lines of entries that form a tree by `id` and `parentId`; the last one is where the session stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from treechat.formats.document import Document, ImportReport
from treechat.formats.importers.content_blocks import add_blocks
from treechat.formats.importers.importer import Importer
from treechat.formats.reading.inputs import Input
from treechat.formats.reading.lenient_fields import dict_of, first_text, id_of, seconds, text_of
from treechat.formats.reading.records import read_records
from treechat.formats.trees.content import Content
from treechat.formats.trees.draft import MAX_NODES, Draft
from treechat.formats.trees.joined_turns import Joining, Link, Speaks
from treechat.formats.trees.sibling_order import shape_of
from treechat.tree import Status

STATUSES: dict[str, Status] = {"error": "failed", "aborted": "stopped"}
REASONS = {"stop": "stop", "length": "length"}
SHOWN = ("user", "assistant", "toolResult", "bashExecution")
KNOWN = (
    "message",
    "model_change",
    "thinking_level_change",
    "compaction",
    "branch_summary",
    "custom",
    "custom_message",
    "label",
    "session_info",
    "leaf",
)


def recognises(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "session" and "currNode" not in value and "id" in value


def read(file: Input, report: ImportReport) -> Iterator[Document]:
    header: dict[str, Any] = {}
    entries: dict[str, dict[str, Any]] = {}
    parents: dict[str, str | None] = {}
    last: str | None = None
    for number, (where, value) in enumerate(read_records(file, report)):
        entry = dict_of(value)
        if entry.get("type") == "session":
            header = header or entry
            continue
        if not isinstance(entry.get("type"), str):
            report.fail(where, "it is not an entry")
            continue
        # The first version had no ids: each entry follows the one before.
        entry_id = id_of(entry.get("id")) or f"entry-{number}"
        parent_id = id_of(entry.get("parentId")) if "parentId" in entry else last
        if entry_id in entries:
            report.drop(where, f"entry {entry_id} comes twice; the first one stays")
        elif len(entries) == MAX_NODES:
            report.fail(where, f"more than {MAX_NODES:,} entries; the rest is left out")
            break
        else:
            entries[entry_id], parents[entry_id] = entry, parent_id
            last = entry_id
    yield from _convert(header, entries, parents, last, file.name, report)


def _convert(
    header: dict[str, Any],
    entries: dict[str, dict[str, Any]],
    parents: dict[str, str | None],
    last: str | None,
    where: str,
    report: ImportReport,
) -> Iterator[Document]:
    names = [text_of(entry.get("name")) for entry in entries.values() if entry["type"] == "session_info"]
    labels: dict[str, str] = {}
    for entry in entries.values():
        if entry["type"] == "label" and (target := id_of(entry.get("targetId"))):
            labels[target] = text_of(entry.get("label"))
    for kind in sorted({entry["type"] for entry in entries.values()} - set(KNOWN)):
        report.drop(where, f"entries of the unknown type {kind[:40]}")
    shape = shape_of(parents, {}, {}, report, where)
    source_id = id_of(header.get("id")) or next(iter(entries), "")
    meta = {"cwd": header.get("cwd"), "parent_session": header.get("parentSession")}
    draft = Draft("pi", source_id, names[-1] if names else "", seconds(header.get("timestamp")), meta=meta)
    joining = Joining(draft, where, report, labels)
    unknown: set[str] = set()
    joining.join(shape.children, lambda i: _speaks(entries[i]), lambda i: _link(i, entries[i], unknown))
    for kind in sorted(unknown):
        report.drop(where, f"content of the unknown type {kind}; its text was kept")
    draft.current = joining.home_of(last, shape.parents)
    if len(draft):
        yield draft.document(report, where)
    else:
        report.drop(where, "it has no messages")


def _speaks(entry: dict[str, Any]) -> Speaks:
    role = dict_of(entry.get("message")).get("role")
    if entry["type"] == "message" and role in SHOWN:
        return "user" if role in ("user", "bashExecution") else "part"
    if entry["type"] == "custom_message" and entry.get("display") is True:
        return "user"
    return "hidden" if entry["type"] in ("message", "custom_message", "compaction", "branch_summary") else "nothing"


def _link(entry_id: str, entry: dict[str, Any], unknown: set[str]) -> Link:
    content = Content()
    message = dict_of(entry.get("message"))
    said = message.get("content")
    match message.get("role"):
        case "toolResult":
            inner = Content()
            unknown.update(add_blocks(inner, said))
            error = True if message.get("isError") is True else None
            content.result(text_of(message.get("toolName")), inner.text, id=message.get("toolCallId"), error=error)
        case "bashExecution":
            content.say(f"$ {text_of(message.get('command'))}\n{text_of(message.get('output'))}".rstrip("\n"))
        case _:
            unknown.update(add_blocks(content, entry.get("content") if entry["type"] == "custom_message" else said))
    if error_message := first_text(message, "errorMessage"):
        content.fail(text=error_message)
    stop_reason = text_of(message.get("stopReason"))
    return Link(
        entry_id,
        _speaks(entry),
        content,
        seconds(entry.get("timestamp")) or seconds(message.get("timestamp")),
        first_text(message, "model") or None,
        ends=message.get("role") == "assistant" and stop_reason != "toolUse",
        finish_reason=REASONS.get(stop_reason),
        status=STATUSES.get(stop_reason, "complete"),
        raw=entry,
    )


IMPORTER = Importer("pi", "pi", recognises, read)
