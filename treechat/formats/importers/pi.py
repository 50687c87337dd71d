"""Import pi's sessions: lines of entries that form a tree by `id` and `parentId`. The last entry is current."""

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
from treechat.formats.trees.joined_turns import MessageKind, SourceMessage, TurnJoiner
from treechat.formats.trees.sibling_order import ordered_forest
from treechat.tree import Status

STATUSES: dict[str, Status] = {"error": "failed", "aborted": "stopped"}
FINISH_REASONS = {"stop": "stop", "length": "length"}
VISIBLE_ROLES = ("user", "assistant", "toolResult", "bashExecution")
ENTRY_TYPES = (
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
    """Return whether the record has this format."""
    return isinstance(value, dict) and value.get("type") == "session" and "currNode" not in value and "id" in value


def read(file: Input, report: ImportReport) -> Iterator[Document]:
    """Yield the conversations of a file. Raises OSError and FormatError."""
    header: dict[str, Any] = {}
    entries: dict[str, dict[str, Any]] = {}
    parents: dict[str, str | None] = {}
    last: str | None = None
    for number, (place, value) in enumerate(read_records(file, report)):
        entry = dict_of(value)
        if entry.get("type") == "session":
            header = header or entry
            continue
        if not isinstance(entry.get("type"), str):
            report.fail(place, "it is not an entry")
            continue
        # The first version has no ids: the parent is the previous entry.
        entry_id = id_of(entry.get("id")) or f"entry-{number}"
        parent_id = id_of(entry.get("parentId")) if "parentId" in entry else last
        if entry_id in entries:
            report.drop(place, f"entry {entry_id} occurs twice; the first one is kept")
        elif len(entries) == MAX_NODES:
            report.fail(place, f"more than {MAX_NODES:,} entries; the rest is left out")
            break
        else:
            entries[entry_id], parents[entry_id] = entry, parent_id
            last = entry_id
    yield from _convert_session(header, entries, parents, last, file.name, report)


def _convert_session(
    header: dict[str, Any],
    entries: dict[str, dict[str, Any]],
    parents: dict[str, str | None],
    last: str | None,
    place: str,
    report: ImportReport,
) -> Iterator[Document]:
    names = [text_of(entry.get("name")) for entry in entries.values() if entry["type"] == "session_info"]
    labels: dict[str, str] = {}
    for entry in entries.values():
        if entry["type"] == "label" and (target := id_of(entry.get("targetId"))):
            labels[target] = text_of(entry.get("label"))
    for kind in sorted({entry["type"] for entry in entries.values()} - set(ENTRY_TYPES)):
        report.drop(place, f"entries of the unknown type {kind[:40]}")
    forest = ordered_forest(parents, {}, {}, report, place)
    source_id = id_of(header.get("id")) or next(iter(entries), "")
    meta = {"cwd": header.get("cwd"), "parent_session": header.get("parentSession")}
    draft = Draft("pi", source_id, names[-1] if names else "", seconds(header.get("timestamp")), meta=meta)
    joiner = TurnJoiner(draft, place, report, labels)
    unknown_kinds: set[str] = set()
    joiner.join(
        forest.children, lambda i: _kind_of(entries[i]), lambda i: _source_message(i, entries[i], unknown_kinds)
    )
    for kind in sorted(unknown_kinds):
        report.drop(place, f"content of the unknown type {kind}; its text was kept")
    draft.current = joiner.node_of(last, forest.parents)
    if len(draft):
        yield draft.document(report, place)
    else:
        report.drop(place, "it has no messages")


def _kind_of(entry: dict[str, Any]) -> MessageKind:
    role = dict_of(entry.get("message")).get("role")
    if entry["type"] == "message" and role in VISIBLE_ROLES:
        return "user" if role in ("user", "bashExecution") else "part"
    if entry["type"] == "custom_message" and entry.get("display") is True:
        return "user"
    return "hidden" if entry["type"] in ("message", "custom_message", "compaction", "branch_summary") else "nothing"


def _source_message(entry_id: str, entry: dict[str, Any], unknown_kinds: set[str]) -> SourceMessage:
    content = Content()
    message = dict_of(entry.get("message"))
    message_content = message.get("content")
    match message.get("role"):
        case "toolResult":
            inner = Content()
            unknown_kinds.update(add_blocks(inner, message_content))
            error = True if message.get("isError") is True else None
            content.add_result(text_of(message.get("toolName")), inner.text, id=message.get("toolCallId"), error=error)
        case "bashExecution":
            content.add_text(f"$ {text_of(message.get('command'))}\n{text_of(message.get('output'))}".rstrip("\n"))
        case _:
            unknown_kinds.update(
                add_blocks(content, entry.get("content") if entry["type"] == "custom_message" else message_content)
            )
    if error_message := first_text(message, "errorMessage"):
        content.add_error(text=error_message)
    stop_reason = text_of(message.get("stopReason"))
    return SourceMessage(
        entry_id,
        _kind_of(entry),
        content,
        seconds(entry.get("timestamp")) or seconds(message.get("timestamp")),
        first_text(message, "model") or None,
        ends_turn=message.get("role") == "assistant" and stop_reason != "toolUse",
        finish_reason=FINISH_REASONS.get(stop_reason),
        status=STATUSES.get(stop_reason, "complete"),
        raw=entry,
    )


IMPORTER = Importer("pi", "pi", recognises, read)
