"""Import ChatGPT's data export: one conversation is an object with a `mapping` of nodes.

An assistant turn is a chain of nodes there (thoughts, tool calls, results, answer) and one node here.
"""

from __future__ import annotations

from typing import Any

from treechat.formats.document import Document, ImportReport
from treechat.formats.importers.chatgpt.message_content import CONTEXTS, content_of
from treechat.formats.importers.importer import Importer, read_by_record
from treechat.formats.reading.lenient_fields import dict_of, first_text, id_of, list_of, seconds, text_of
from treechat.formats.trees.content import Content
from treechat.formats.trees.draft import MAX_NODES, Draft
from treechat.formats.trees.joined_turns import MessageKind, SourceMessage, TurnJoiner
from treechat.formats.trees.sibling_order import OrderedForest, ordered_forest
from treechat.tree import Status

ROLES: dict[str, MessageKind] = {"user": "user", "system": "system", "developer": "system"}


def recognises(value: Any) -> bool:
    """Return whether the record has this format."""
    return isinstance(value, dict) and isinstance(value.get("mapping"), dict)


def convert(value: Any, place: str, report: ImportReport) -> Document | None:
    """Convert one conversation; return None and report the reason if it has no visible messages or too many."""
    record, mapping = dict_of(value), dict_of(dict_of(value).get("mapping"))
    if title := first_text(record, "title"):
        place = f"{place} ({title[:60]})"
    if not mapping:
        report.drop(place, "it has no messages")
        return None
    if len(mapping) > MAX_NODES:
        report.fail(place, f"more than {MAX_NODES:,} nodes in one conversation")
        return None
    created_at = seconds(record.get("create_time"))
    source_id = first_text(record, "conversation_id", "id") or next(iter(mapping))
    draft = Draft("chatgpt", source_id, title, created_at, seconds(record.get("update_time")))
    forest = _forest(mapping, place, report)
    unknown_kinds: set[str] = set()
    default_model = first_text(record, "default_model_slug")
    joiner = TurnJoiner(draft, place, report)
    joiner.join(
        forest.children,
        lambda node_id: _kind_of(_message_of(mapping, node_id)),
        lambda node_id: _source_message(node_id, _message_of(mapping, node_id), default_model, unknown_kinds),
    )
    for kind in sorted(unknown_kinds):
        report.drop(place, f"content of the unknown type {kind}; its text was kept")
    draft.current = joiner.node_of(id_of(record.get("current_node")), forest.parents)
    if not len(draft):
        report.drop(place, "it has no visible messages")
        return None
    return draft.document(report, place)


def _forest(mapping: dict[str, Any], place: str, report: ImportReport) -> OrderedForest:
    listed_children = {node_id: list_of(dict_of(node).get("children")) for node_id, node in mapping.items()}
    parents = {node_id: id_of(dict_of(node).get("parent")) for node_id, node in mapping.items()}
    for parent_id, children in listed_children.items():
        for child in children:
            if isinstance(child, str) and parents.get(child) not in (None, parent_id):
                report.drop(place, f"node {child} has several parents; {parents[child]} stays")
    times = {i: seconds(dict_of(dict_of(node).get("message")).get("create_time")) for i, node in mapping.items()}
    if len(mapping) > 1 and not any(parents.values()) and not any(listed_children.values()):
        report.drop(place, "its messages have no parents; they become one branch, ordered by time")
        chain = sorted(mapping, key=lambda node_id: times[node_id] or 0)
        parents = dict(zip(chain, (None, *chain), strict=False))
    return ordered_forest(parents, listed_children, times, report, place)


def _message_of(mapping: dict[str, Any], node_id: str) -> dict[str, Any]:
    return dict_of(dict_of(mapping[node_id]).get("message"))


def _source_message(
    node_id: str, message: dict[str, Any], default_model: str, unknown_kinds: set[str]
) -> SourceMessage:
    content = content_of(message, unknown_kinds) if message else Content()
    finish_reason, status = _finish(message)
    return SourceMessage(
        node_id,
        _kind_of(message) if content else "nothing",
        content,
        seconds(message.get("create_time")),
        text_of(dict_of(message.get("metadata")).get("model_slug")) or default_model or None,
        message.get("end_turn") is True,
        finish_reason,
        status,
        {"role": _role(message), "content": message.get("content")},
    )


def _role(message: dict[str, Any]) -> str:
    return text_of(dict_of(message.get("author")).get("role"))


def _kind_of(message: dict[str, Any]) -> MessageKind:
    if not message:
        return "nothing"
    hidden = dict_of(message.get("metadata")).get("is_visually_hidden_from_conversation") is True
    if hidden or text_of(dict_of(message.get("content")).get("content_type")) in CONTEXTS:
        return "hidden"
    return ROLES.get(_role(message), "part")


def _finish(message: dict[str, Any]) -> tuple[str | None, Status]:
    kind = text_of(dict_of(dict_of(message.get("metadata")).get("finish_details")).get("type"))
    if kind == "interrupted":
        return None, "stopped"
    if message.get("status") == "in_progress":
        return None, "interrupted"
    return {"stop": "stop", "max_tokens": "length"}.get(kind), "complete"


IMPORTER = Importer("chatgpt", "ChatGPT", recognises, read_by_record(convert))
