"""A conversation while an importer reads it: messages under the source's own ids, in the order siblings shall have."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from treechat.formats.document import Document, ImportReport, Message, Source
from treechat.formats.reading.lenient_fields import meta_value
from treechat.formats.trees.content import Content
from treechat.formats.trees.repair import repair_messages
from treechat.tree import Conversation, Node, Role, Status, Turn, preview_of

MAX_NODES = 1_000_000
"""Nodes of one conversation; the rest of a longer one is reported and left out."""


def derived_id(*names: str) -> str:
    """The id that always stands for these names here: of a source, a conversation there, a message in it."""
    joined = "\0".join(names).encode("utf-8", errors="replace")
    return hashlib.blake2b(joined, digest_size=8).hexdigest()


class Draft:
    """What is added is put in order by `document`.

    source, source_id: name of the format, and the conversation's id there; importing again is recognised by them.
    title: an empty one becomes the beginning of the first message. Times are seconds since the epoch, None if unknown.
    """

    def __init__(
        self,
        source: str,
        source_id: str,
        title: str = "",
        created_at: float | None = None,
        updated_at: float | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        self.source = Source(source, source_id)
        self.title, self.created_at, self.updated_at = title, created_at, updated_at
        self.meta = {key: meta_value(value) for key, value in (meta or {}).items() if value not in (None, "", [], {})}
        self.messages: list[Message] = []
        self.current: str | None = None

    def __len__(self) -> int:
        return len(self.messages)

    @property
    def is_full(self) -> bool:
        return len(self.messages) >= MAX_NODES

    def add(
        self,
        message_id: str,
        parent_id: str | None,
        role: Role,
        content: Content | str,
        created_at: float | None = None,
        *,
        model: str | None = None,
        sampling: Mapping[str, Any] | None = None,
        finish_reason: str | None = None,
        status: Status = "complete",
        label: str | None = None,
        bookmarked: bool = False,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a message. Its parent may come later. model: the one that wrote it, None where nobody knows."""
        text, parts = (content, {}) if isinstance(content, str) else (content.text, content.meta)
        extra = {key: meta_value(value) for key, value in (meta or {}).items() if value not in (None, "", [], {})}
        node = Node(message_id, parent_id, role, status, created_at or 0.0, preview_of(text), label, bookmarked)
        turn = Turn(model, dict(sampling or {}), finish_reason=finish_reason) if model and role == "assistant" else None
        labels = (label,) if label else ()
        self.messages.append(Message(node, text, turn, (), labels, {"id": message_id} | extra | parts))

    def add_system_prompt(self, system: str) -> str | None:
        """Put a system prompt above all roots that come; returns its id, None where there is no prompt."""
        if not system:
            return None
        self.add("system-prompt", None, "system", system, self.created_at)
        return "system-prompt"

    def document(self, report: ImportReport, place: str) -> Document:
        """The whole conversation under ids of our own, after which the draft is empty. What had to be mended is in
        `report`.
        """
        repaired = repair_messages(self.messages, report, place)
        # What is taken from here on goes as it is taken: of a million messages there are never two.
        self.messages = []
        repaired.reverse()
        if num_empty := sum(not message.text for message in repaired):
            report.drop(place, f"{num_empty:,} of its {len(repaired):,} messages have no text")
        parent_ids = {message.node.parent_id for message in repaired}
        ids: dict[str | None, str | None] = {None: None}
        times: dict[str | None, float] = {None: self.created_at or time.time()}
        messages: list[Message] = []
        while repaired:
            message = repaired.pop()
            node = message.node
            own_id = self.own_id(node.id)
            # A message without a time was written when the one above it was, as far as anybody knows.
            created_at = node.created_at or times[node.parent_id]
            if node.id in parent_ids:
                ids[node.id], times[node.id] = own_id, created_at
            node = replace(node, id=own_id, parent_id=ids[node.parent_id], created_at=created_at)
            messages.append(replace(message, node=node))
        first_at = min((message.node.created_at for message in messages), default=time.time())
        created_at = self.created_at or first_at
        updated_at = max(self.updated_at or created_at, created_at)
        current_id = self._current(messages, report, place)
        title = self.title or next((m.node.preview[:60] for m in messages if m.node.role == "user"), "")
        identity = derived_id(*self.source)
        conversation = Conversation(identity, title, created_at, updated_at, current_id, self.meta)
        return Document(conversation, messages, self.source)

    def own_id(self, message_id: str) -> str:
        return derived_id(*self.source, message_id)

    def _current(self, messages: list[Message], report: ImportReport, place: str) -> str | None:
        if self.current is not None:
            current_id = self.own_id(self.current)
            if any(message.node.id == current_id for message in messages):
                return current_id
            report.drop(place, f"the current message {self.current} is missing; the newest one is current")
        parents = {message.node.parent_id for message in messages}
        leaves = [message.node for message in messages if message.node.id not in parents]
        # The last of several of one time.
        return max(reversed(leaves), key=lambda node: node.created_at).id if leaves else None
