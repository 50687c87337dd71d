"""Read llm's tree of messages (0.32 and later). A message's id is a hash of its path; turns and threads refer to it."""

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
from treechat.formats.trees.joined_turns import MessageKind, SourceMessage, TurnJoiner
from treechat.formats.trees.sibling_order import OrderedForest, ordered_forest

ROLES: dict[str, MessageKind] = {"user": "user", "system": "system", "assistant": "part", "tool": "part"}
PART_COLUMNS = ("message_hash", "position", "type", "tool_name", "text", "payload")
TURN_COLUMNS = (
    "id", "thread_id", "parent_message_hash", "tip_message_hash", "model", "resolved_model", "options_json",
    "datetime_utc",
)  # fmt: skip


def read_tree(source: SqliteSource, tree_thread_ids: set[str], file: Input, report: ImportReport) -> Iterator[Document]:
    """Yield one document per root. Adds the ids of its threads to `tree_thread_ids`."""
    parents: dict[str, str | None] = {}
    roles: dict[str, str] = {}
    for row in source.rows("messages", ("hash", "parent_hash", "role"), "ORDER BY rowid"):
        if (key := id_of(row["hash"])) is None:
            continue
        if len(parents) == MAX_NODES:
            report.fail(file.name, f"more than {MAX_NODES:,} messages; the rest is left out")
            break
        parents[key], roles[key] = id_of(row["parent_hash"]), text_of(row["role"])
    forest = ordered_forest(parents, {}, {}, report, file.name)
    roots = _roots(forest)
    threads: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in source.rows("threads", ("id", "name", "tip_message_hash", "datetime_utc"), "ORDER BY rowid"):
        if (root := roots.get(row["tip_message_hash"])) is not None:
            threads[root].append(row)
            tree_thread_ids.add(str(row["id"]))
    turns: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in source.rows("turns", TURN_COLUMNS, "ORDER BY rowid"):
        if (root := roots.get(row["tip_message_hash"])) is not None:
            turns[root].append(row)
    for root in forest.children[None]:
        yield _MessageTree(source, root, roles, forest, threads[root], turns[root]).document(file, report)


def _roots(forest: OrderedForest) -> dict[Any, str]:
    """Return the root of each message."""
    roots: dict[Any, str] = {}
    stack = [(root, root) for root in forest.children[None]]
    while stack:
        key, root = stack.pop()
        roots[key] = root
        stack.extend((child, root) for child in forest.children.get(key, ()))
    return roots


class _MessageTree:
    """All messages below one root, root included."""

    def __init__(
        self,
        source: SqliteSource,
        root: str,
        roles: dict[str, str],
        forest: OrderedForest,
        threads: Sequence[dict[str, Any]],
        turns: Sequence[dict[str, Any]],
    ) -> None:
        self.source, self.root, self.roles, self.forest, self.threads = source, root, roles, forest, threads
        self.turn_of: dict[str, dict[str, Any]] = {}
        for turn in turns:
            key = turn["tip_message_hash"]
            while key is not None and key != turn["parent_message_hash"] and key not in self.turn_of:
                self.turn_of[key] = turn
                key = forest.parents.get(key)
        self.parts: dict[str, list[dict[str, Any]]] = {}
        self.fragments: dict[Any, str] = {}
        self.attachments: dict[Any, dict[str, Any]] = {}

    def document(self, file: Input, report: ImportReport) -> Document:
        """Return the conversation below this root."""
        name = next((first_text(row, "name") for row in reversed(self.threads) if row["name"]), "")
        place = f"{file.name} ({name[:60] or self.root[:12]})"
        times = [seconds(row["datetime_utc"]) for row in [*self.threads, *self.turn_of.values()]]
        known_times = [time for time in times if time is not None]
        draft = Draft("llm", self.root, name, min(known_times, default=None), max(known_times, default=None))
        self._load()
        joiner = TurnJoiner(draft, place, report)
        joiner.join({**self.forest.children, None: [self.root]}, self._kind_of, self._source_message)
        # The thread with the latest turn.
        tips = {row["thread_id"]: row["datetime_utc"] or "" for row in self.turn_of.values()}
        newest = max(self.threads, key=lambda row: str(tips.get(row["id"]) or row["datetime_utc"] or ""), default=None)
        draft.current = joiner.node_of(newest["tip_message_hash"], self.forest.parents) if newest else None
        self.parts = {}
        return draft.document(report, place)

    def _load(self) -> None:
        """Load the parts of all messages of this tree, their fragments and attachments."""
        keys, stack = [], [self.root]
        while stack:
            keys.append(key := stack.pop())
            stack.extend(self.forest.children.get(key, ()))
        fragment_ids: set[int] = set()
        for row in self.source.rows_matching("parts", PART_COLUMNS, "message_hash", keys, "message_hash position"):
            row["payload"] = dict_of(json_in(row["payload"]))
            self.parts.setdefault(row["message_hash"], []).append(row)
            fragment_ids.update(piece["fragment"] for piece in _text_pieces(row) if type(piece.get("fragment")) is int)
        fragment_rows = self.source.rows_matching("fragments", ("id", "content"), "id", sorted(fragment_ids))
        self.fragments = {row["id"]: text_of(row["content"]) for row in fragment_rows}
        attachment_ids = {_attachment_id(part) for parts in self.parts.values() for part in parts} - {""}
        known_times = self.source.rows_matching("attachments", ATTACHMENT_COLUMNS, "id", sorted(attachment_ids))
        self.attachments = {row["id"]: row for row in known_times}

    def _kind_of(self, key: str) -> MessageKind:
        return ROLES.get(self.roles[key], "part")

    def _source_message(self, key: str) -> SourceMessage:
        content = Content()
        for part in self.parts.get(key, ()):
            self._add_part(content, part)
        turn = self.turn_of.get(key, {})
        has_calls = any(part["type"] == "tool_call" for part in self.parts.get(key, ()))
        return SourceMessage(
            key,
            self._kind_of(key),
            content,
            seconds(turn.get("datetime_utc")),
            first_text(turn, "resolved_model", "model") or None,
            ends_turn=self.roles[key] == "assistant" and not has_calls,
            sampling=options_in(turn.get("options_json")),
        )

    def _add_part(self, content: Content, part: dict[str, Any]) -> None:
        payload = part["payload"]
        text = text_of(part["text"]) or text_of(payload.get("text"))
        if pieces := _text_pieces(part):
            text = "".join(
                piece["literal"] if isinstance(piece.get("literal"), str) else self._fragment_text(piece)
                for piece in pieces
            )
        name = text_of(part["tool_name"]) or text_of(payload.get("name"))
        match part["type"]:
            case "text":
                content.add_text(text)
            case "reasoning":
                content.add_thoughts(text)
            case "tool_call":
                content.add_call(name, payload.get("arguments"), id=payload.get("tool_call_id"))
            case "tool_result":
                content.add_result(name, text_of(payload.get("output")), id=payload.get("tool_call_id"))
            case "attachment":
                add_attachment(
                    content, self.attachments.get(_attachment_id(part)) or dict_of(payload.get("attachment"))
                )
            case kind:
                content.add_part(text_of(kind) or "unknown", raw=payload)
                content.add_text(text or words_in(payload))

    def _fragment_text(self, piece: dict[str, Any]) -> str:
        number = piece.get("fragment")
        return self.fragments.get(number, "") if type(number) is int else ""


def _text_pieces(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict_of(piece) for piece in list_of(part["payload"].get("text_ref"))]


def _attachment_id(part: dict[str, Any]) -> str:
    return text_of(dict_of(part["payload"].get("attachment")).get("id"))
