"""llm's tree of messages, from 0.32 on: a hash names each and covers all above it; turns and threads point in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from treechat.formats.document import Document, ImportReport
from treechat.formats.importers.llm.columns import ATTACHMENT_COLUMNS, add_attachment, options_in
from treechat.formats.reading.inputs import Input
from treechat.formats.reading.lenient_fields import dict_of, first_text, id_of, json_in, list_of, seconds, text_of
from treechat.formats.reading.sqlite_source import SqliteSource
from treechat.formats.trees.content import Content, words_in
from treechat.formats.trees.draft import MAX_NODES, Draft
from treechat.formats.trees.joined_turns import Joining, Link, Speaks
from treechat.formats.trees.sibling_order import Shape, shape_of

ROLES: dict[str, Speaks] = {"user": "user", "system": "system", "assistant": "part", "tool": "part"}
PART_COLUMNS = ("message_hash", "position", "type", "tool_name", "text", "payload")
TURN_COLUMNS = (
    "id", "thread_id", "parent_message_hash", "tip_message_hash", "model", "resolved_model", "options_json",
    "datetime_utc",
)  # fmt: skip


def read_tree(source: SqliteSource, in_tree: set[str], file: Input, report: ImportReport) -> Iterator[Document]:
    """One document per root. Ids of the threads that were read go into `in_tree`."""
    parents: dict[str, str | None] = {}
    roles: dict[str, str] = {}
    for row in source.rows("messages", ("hash", "parent_hash", "role"), "ORDER BY rowid"):
        if (key := id_of(row["hash"])) is None:
            continue
        if len(parents) == MAX_NODES:
            report.fail(file.name, f"more than {MAX_NODES:,} messages; the rest is left out")
            break
        parents[key], roles[key] = id_of(row["parent_hash"]), text_of(row["role"])
    shape = shape_of(parents, {}, {}, report, file.name)
    roots = _roots(shape)
    threads: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in source.rows("threads", ("id", "name", "tip_message_hash", "datetime_utc"), "ORDER BY rowid"):
        if (root := roots.get(row["tip_message_hash"])) is not None:
            threads[root].append(row)
            in_tree.add(str(row["id"]))
    turns: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in source.rows("turns", TURN_COLUMNS, "ORDER BY rowid"):
        if (root := roots.get(row["tip_message_hash"])) is not None:
            turns[root].append(row)
    for root in shape.children[None]:
        yield _Tree(source, root, roles, shape, threads[root], turns[root]).document(file, report)


def _roots(shape: Shape) -> dict[Any, str]:
    """The root above each message."""
    roots: dict[Any, str] = {}
    stack = [(root, root) for root in shape.children[None]]
    while stack:
        key, root = stack.pop()
        roots[key] = root
        stack.extend((child, root) for child in shape.children.get(key, ()))
    return roots


class _Tree:
    """All messages below one root."""

    def __init__(
        self,
        source: SqliteSource,
        root: str,
        roles: dict[str, str],
        shape: Shape,
        threads: Sequence[dict[str, Any]],
        turns: Sequence[dict[str, Any]],
    ) -> None:
        self.source, self.root, self.roles, self.shape, self.threads = source, root, roles, shape, threads
        self.turn_of: dict[str, dict[str, Any]] = {}
        for turn in turns:
            key = turn["tip_message_hash"]
            while key is not None and key != turn["parent_message_hash"] and key not in self.turn_of:
                self.turn_of[key] = turn
                key = shape.parents.get(key)
        self.parts: dict[str, list[dict[str, Any]]] = {}
        self.fragments: dict[Any, str] = {}
        self.attachments: dict[Any, dict[str, Any]] = {}

    def document(self, file: Input, report: ImportReport) -> Document:
        name = next((first_text(row, "name") for row in reversed(self.threads) if row["name"]), "")
        where = f"{file.name} ({name[:60] or self.root[:12]})"
        times = [seconds(row["datetime_utc"]) for row in [*self.threads, *self.turn_of.values()]]
        known = [time for time in times if time is not None]
        draft = Draft("llm", self.root, name, min(known, default=None), max(known, default=None))
        self._load()
        joining = Joining(draft, where, report)
        joining.join({**self.shape.children, None: [self.root]}, self._speaks, self._link)
        # The thread that was used last.
        tips = {row["thread_id"]: row["datetime_utc"] or "" for row in self.turn_of.values()}
        newest = max(self.threads, key=lambda row: str(tips.get(row["id"]) or row["datetime_utc"] or ""), default=None)
        draft.current = joining.home_of(newest["tip_message_hash"], self.shape.parents) if newest else None
        self.parts = {}
        return draft.document(report, where)

    def _load(self) -> None:
        """The parts of all messages of this tree, and the fragments that they borrow."""
        keys, stack = [], [self.root]
        while stack:
            keys.append(key := stack.pop())
            stack.extend(self.shape.children.get(key, ()))
        fragment_ids: set[int] = set()
        for row in self.source.rows_of("parts", PART_COLUMNS, "message_hash", keys, "message_hash position"):
            row["payload"] = dict_of(json_in(row["payload"]))
            self.parts.setdefault(row["message_hash"], []).append(row)
            fragment_ids.update(piece["fragment"] for piece in _pieces(row) if type(piece.get("fragment")) is int)
        found = self.source.rows_of("fragments", ("id", "content"), "id", sorted(fragment_ids))
        self.fragments = {row["id"]: text_of(row["content"]) for row in found}
        attachment_ids = {_attachment_id(part) for parts in self.parts.values() for part in parts} - {""}
        known = self.source.rows_of("attachments", ATTACHMENT_COLUMNS, "id", sorted(attachment_ids))
        self.attachments = {row["id"]: row for row in known}

    def _speaks(self, key: str) -> Speaks:
        return ROLES.get(self.roles[key], "part")

    def _link(self, key: str) -> Link:
        content = Content()
        for part in self.parts.get(key, ()):
            self._add(content, part)
        turn = self.turn_of.get(key, {})
        calls = any(part["type"] == "tool_call" for part in self.parts.get(key, ()))
        return Link(
            key,
            self._speaks(key),
            content,
            seconds(turn.get("datetime_utc")),
            first_text(turn, "resolved_model", "model") or None,
            ends=self.roles[key] == "assistant" and not calls,
            sampling=options_in(turn.get("options_json")),
        )

    def _add(self, content: Content, part: dict[str, Any]) -> None:
        payload = part["payload"]
        text = text_of(part["text"]) or text_of(payload.get("text"))
        if pieces := _pieces(part):
            text = "".join(
                piece["literal"] if isinstance(piece.get("literal"), str) else self._fragment(piece) for piece in pieces
            )
        name = text_of(part["tool_name"]) or text_of(payload.get("name"))
        match part["type"]:
            case "text":
                content.say(text)
            case "reasoning":
                content.think(text)
            case "tool_call":
                content.call(name, payload.get("arguments"), id=payload.get("tool_call_id"))
            case "tool_result":
                content.result(name, text_of(payload.get("output")), id=payload.get("tool_call_id"))
            case "attachment":
                add_attachment(
                    content, self.attachments.get(_attachment_id(part)) or dict_of(payload.get("attachment"))
                )
            case kind:
                content.keep(text_of(kind) or "unknown", raw=payload)
                content.say(text or words_in(payload))

    def _fragment(self, piece: dict[str, Any]) -> str:
        number = piece.get("fragment")
        return self.fragments.get(number, "") if type(number) is int else ""


def _pieces(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict_of(piece) for piece in list_of(part["payload"].get("text_ref"))]


def _attachment_id(part: dict[str, Any]) -> str:
    return text_of(dict_of(part["payload"].get("attachment")).get("id"))
