"""ChatGPT's data export: one conversation is an object with a `mapping` of nodes.

A visible turn of the assistant is a chain there (thoughts, tool calls, their results, the answer) and one node here. A
fork inside such a chain gives one node for each way through it. Hidden messages are kept with the one they lead to.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any, NamedTuple

from treechat.formats.chatgpt_content import CONTEXTS, content_of
from treechat.formats.content import Content
from treechat.formats.document import Document, ImportReport, Message
from treechat.formats.draft import MAX_NODES, Draft
from treechat.formats.importer import Importer, by_record
from treechat.formats.loose import dict_of, first_text, id_of, list_of, seconds, text_of
from treechat.formats.structure import arrange
from treechat.tree import Node, Role, Status

MAX_CARRIED = 64
"""Messages of a chain that a fork in it repeats on each side; a longer one is split into two nodes there."""

MAX_REPEATED_BYTES = 16 * 1024 * 1024
"""What all such repetitions of one conversation may take."""


class _Raw(NamedTuple):
    """A node of the mapping. speaks: user or system for a visible message, part for a piece of the assistant's turn,
    hidden for what nobody sees, nothing for what says nothing.
    """

    id: str
    message: dict[str, Any]
    content: Content
    speaks: str


class _Chain(NamedTuple):
    """What was passed on the way down and belongs to the node that comes next; the last one first."""

    above: _Chain | None
    raw: _Raw
    length: int
    last_part: str | None


def recognises(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("mapping"), dict)


def convert(value: Any, where: str, report: ImportReport) -> Document | None:
    record, mapping = dict_of(value), dict_of(dict_of(value).get("mapping"))
    if title := first_text(record, "title"):
        where = f"{where} ({title[:60]})"
    if not mapping:
        report.drop(where, "it has no messages")
        return None
    if len(mapping) > MAX_NODES:
        report.fail(where, f"more than {MAX_NODES:,} nodes in one conversation")
        return None
    created_at = seconds(record.get("create_time"))
    source_id = first_text(record, "conversation_id", "id") or next(iter(mapping))
    draft = Draft("chatgpt", source_id, title, created_at, seconds(record.get("update_time")))
    reading = _Reading(draft, first_text(record, "default_model_slug"), where, report)
    reading.read(mapping)
    draft.current = reading.home_of(id_of(record.get("current_node")))
    if not len(draft):
        report.drop(where, "it has no visible messages")
        return None
    return draft.document(report, where)


class _Reading:
    def __init__(self, draft: Draft, default_model: str, where: str, report: ImportReport) -> None:
        self.draft, self.default_model, self.where, self.report = draft, default_model, where, report
        self.parents: dict[str, str | None] = {}
        self.homes: dict[str, str] = {}
        self.made: set[str] = set()
        self.unknown: set[str] = set()
        self.repeatable = MAX_REPEATED_BYTES

    def read(self, mapping: dict[str, Any]) -> None:
        children = self._children(mapping)
        stack: list[tuple[str, str | None, _Chain | None]] = [(i, None, None) for i in reversed(children[None])]
        while stack:
            node_id, above, chain = stack.pop()
            below = children[node_id]
            above, chain = self._pass(self._raw(node_id, mapping), above, chain)
            if chain is not None:
                speaking = [_speaks(dict_of(dict_of(mapping[i]).get("message"))) for i in below]
                ends = not below or "user" in speaking or "system" in speaking or _ends_turn(chain.raw)
                if chain.last_part is not None and ends:
                    above, chain = self._flush(above, chain), None
                elif not below:
                    self.report.drop(self.where, f"nothing follows the hidden message {chain.raw.id}")
                elif len(below) > 1:
                    above, chain = self._at_fork(above, chain, len(below))
            stack.extend((i, above, chain) for i in reversed(below))
        for kind in sorted(self.unknown):
            self.report.drop(self.where, f"content of the unknown type {kind}; its text was kept")

    def home_of(self, raw_id: str | None) -> str | None:
        """The node that a node of the mapping became part of, or else the next one above it."""
        seen = set()
        while raw_id is not None and raw_id not in self.homes and raw_id not in seen:
            seen.add(raw_id)
            raw_id = self.parents.get(raw_id)
        return None if raw_id is None else self.homes.get(raw_id)

    def _children(self, mapping: dict[str, Any]) -> dict[str | None, list[str]]:
        """Children by parent, in the order that the source shows them, without cycles and missing parents."""
        listed: dict[str, tuple[str, int]] = {}
        for node_id, node in mapping.items():
            for place, child in enumerate(list_of(dict_of(node).get("children"))):
                if isinstance(child, str):
                    listed.setdefault(child, (node_id, place))
        stubs = []
        for node_id, node in mapping.items():
            parent_id = id_of(dict_of(node).get("parent"))
            lister = listed.get(node_id, (None, 0))[0]
            if parent_id is None and lister is not None:
                parent_id = lister
            elif lister is not None and lister != parent_id:
                self.report.drop(self.where, f"node {node_id} has several parents; {parent_id} stays")
            stubs.append(Message(Node(node_id, parent_id, "user"), ""))
        children: dict[str | None, list[str]] = defaultdict(list)
        for stub in arrange(stubs, self.report, self.where):
            self.parents[stub.node.id] = stub.node.parent_id
            children[stub.node.parent_id].append(stub.node.id)
        for parent_id, siblings in children.items():
            if len(siblings) > 1:
                times = [seconds(dict_of(dict_of(mapping[i]).get("message")).get("create_time")) for i in siblings]
                order = [
                    (0, listed[i][1], 0.0) if listed.get(i, ("",))[0] == parent_id else (1, 0, at or float("inf"))
                    for i, at in zip(siblings, times, strict=True)
                ]
                children[parent_id] = [i for _, i in sorted(zip(order, siblings, strict=True), key=lambda x: x[0])]
        return children

    def _raw(self, node_id: str, mapping: dict[str, Any]) -> _Raw:
        message = dict_of(dict_of(mapping[node_id]).get("message"))
        content = content_of(message, self.unknown) if message else Content()
        return _Raw(node_id, message, content, _speaks(message) if content else "nothing")

    def _pass(self, raw: _Raw, above: str | None, chain: _Chain | None) -> tuple[str | None, _Chain | None]:
        if raw.speaks == "nothing":
            return above, chain
        if raw.speaks in ("user", "system"):
            if chain is not None and chain.last_part is not None:
                above, chain = self._flush(above, chain), None
            self._add(raw.id, above, "user" if raw.speaks == "user" else "system", chain, raw)
            return raw.id, None
        last_part = raw.id if raw.speaks == "part" else chain.last_part if chain else None
        return above, _Chain(chain, raw, chain.length + 1 if chain else 1, last_part)

    def _flush(self, above: str | None, chain: _Chain) -> str:
        """Make the chain a node, once; returns the node's id."""
        assert chain.last_part is not None, "hidden messages alone are no node"
        if chain.last_part not in self.made:
            self._add(chain.last_part, above, "assistant", chain)
        return chain.last_part

    def _at_fork(self, above: str | None, chain: _Chain, num_ways: int) -> tuple[str | None, _Chain | None]:
        """Take the chain along on each way, or end it here where that would be too much."""
        size = sum(len(json.dumps(raw.content.parts)) + len(raw.content.text) for raw in _raws(chain))
        self.repeatable -= size * (num_ways - 1)
        if chain.length <= MAX_CARRIED and self.repeatable >= 0:
            return above, chain
        if chain.last_part is None:
            self.report.drop(self.where, f"hidden messages above {num_ways} branches, the last one {chain.raw.id}")
            return above, None
        return self._flush(above, chain), None

    def _add(self, node_id: str, above: str | None, role: Role, chain: _Chain | None, own: _Raw | None = None) -> None:
        content = Content()
        raws = [*_raws(chain), *([own] if own else [])]
        for raw in raws:
            if raw.speaks == "hidden":
                content.keep("hidden", role=_role(raw.message), raw=raw.message.get("content"))
            else:
                content.extend(raw.content)
            self.homes.setdefault(raw.id, node_id)
        shown = [raw.message for raw in raws if raw.speaks != "hidden"]
        models = [text_of(dict_of(message.get("metadata")).get("model_slug")) for message in shown]
        times = [seconds(message.get("create_time")) for message in shown]
        finish_reason, status = _finish(shown[-1])
        self.made.add(node_id)
        self.draft.add(
            node_id,
            above,
            role,
            content,
            next(filter(None, times), None),
            model=next(filter(None, reversed(models)), self.default_model) or None,
            finish_reason=finish_reason,
            status=status,
        )


def _raws(chain: _Chain | None) -> list[_Raw]:
    raws = []
    while chain is not None:
        raws.append(chain.raw)
        chain = chain.above
    return raws[::-1]


def _role(message: dict[str, Any]) -> str:
    return text_of(dict_of(message.get("author")).get("role"))


def _speaks(message: dict[str, Any]) -> str:
    if not message:
        return "nothing"
    hidden = dict_of(message.get("metadata")).get("is_visually_hidden_from_conversation") is True
    if hidden or text_of(dict_of(message.get("content")).get("content_type")) in CONTEXTS:
        return "hidden"
    return {"user": "user", "system": "system", "developer": "system"}.get(_role(message), "part")


def _ends_turn(raw: _Raw) -> bool:
    return raw.speaks == "part" and raw.message.get("end_turn") is True


def _finish(message: dict[str, Any]) -> tuple[str | None, Status]:
    kind = text_of(dict_of(dict_of(message.get("metadata")).get("finish_details")).get("type"))
    if kind == "interrupted":
        return None, "stopped"
    if message.get("status") == "in_progress":
        return None, "interrupted"
    return {"stop": "stop", "max_tokens": "length"}.get(kind), "complete"


IMPORTER = Importer("chatgpt", "ChatGPT", recognises, by_record(convert))
