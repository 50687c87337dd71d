"""A conversation during its import: messages under the source's ids, in the order of siblings."""

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
"""Limit on the nodes of one conversation; further ones are reported and left out."""


def derived_id(*names: str) -> str:
    """Return the id for these names (a source, a conversation, a message): always the same for the same names."""
    joined = "\0".join(names).encode("utf-8", errors="replace")
    return hashlib.blake2b(joined, digest_size=8).hexdigest()


class Draft:
    """Collects messages; `document` orders them.

    source: name of the format and the conversation's id there; a second import is recognised by them.
    title: if empty, the beginning of the first user message is used.
    created_at, updated_at: seconds since the epoch, None if unknown.
    meta: further data of the conversation.
    messages: those added so far.
    current: the source's id of the current message, None if unknown: then the newest leaf is current.
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
        """Whether the draft has `MAX_NODES` messages."""
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
        """Add a message. Its parent may be added later.

        message_id: the source's id.
        parent_id: the source's id of the parent, None for a root.
        role: role of the node.
        content: text, or text and parts.
        created_at: seconds since the epoch, None if unknown.
        model: the model that generated it, None if unknown.
        sampling: sampling settings, None if unknown.
        finish_reason: why generation stopped, None if unknown.
        status: status of the node.
        label: label of the node, None if it has none.
        bookmarked: whether the node is bookmarked.
        meta: further data of the node.
        """
        text, parts = (content, {}) if isinstance(content, str) else (content.text, content.meta)
        extra = {key: meta_value(value) for key, value in (meta or {}).items() if value not in (None, "", [], {})}
        node = Node(message_id, parent_id, role, status, created_at or 0.0, preview_of(text), label, bookmarked)
        turn = Turn(model, dict(sampling or {}), finish_reason=finish_reason) if model and role == "assistant" else None
        labels = (label,) if label else ()
        self.messages.append(Message(node, text, turn, (), labels, {"id": message_id} | extra | parts))

    def add_system_prompt(self, system: str) -> str | None:
        """Add a system prompt for later roots to hang under; return its id, None if the prompt is empty."""
        if not system:
            return None
        self.add("system-prompt", None, "system", system, self.created_at)
        return "system-prompt"

    def document(self, report: ImportReport, place: str) -> Document:
        """Return the conversation under treechat's ids, and empty the draft. Repairs go to `report`."""
        repaired = repair_messages(self.messages, report, place)
        # Release each message when its final copy is made: a million messages must not be held twice.
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
            # A message without a time gets the time of its parent.
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
        """Return treechat's id for a message of the source."""
        return derived_id(*self.source, message_id)

    def _current(self, messages: list[Message], report: ImportReport, place: str) -> str | None:
        if self.current is not None:
            current_id = self.own_id(self.current)
            if any(message.node.id == current_id for message in messages):
                return current_id
            report.drop(place, f"the current message {self.current} is missing; the newest one is current")
        parents = {message.node.parent_id for message in messages}
        leaves = [message.node for message in messages if message.node.id not in parents]
        # Of several leaves with the same time, the last one.
        return max(reversed(leaves), key=lambda node: node.created_at).id if leaves else None
