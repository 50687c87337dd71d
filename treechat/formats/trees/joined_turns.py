"""Join each chain of messages that is one assistant turn (thoughts, calls, results, answer) into one node.

A fork inside a chain gives one node per branch. A hidden message is kept with the next node below it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from treechat.formats.document import ImportReport
from treechat.formats.trees.content import Content
from treechat.formats.trees.draft import Draft
from treechat.tree import Role, Status

MAX_REPEATED_MESSAGES = 64
"""Messages of a chain that a fork repeats on each branch. A longer chain is split into two nodes at the fork."""

MAX_REPEATED_BYTES = 16 * 1024 * 1024
"""Limit on all these repetitions in one conversation."""

MessageKind = Literal["user", "system", "part", "hidden", "nothing"]
"""`user` and `system` messages become nodes. A `part` belongs to an assistant turn. A `hidden` message is not visible
in the source. `nothing` is skipped."""


class SourceMessage(NamedTuple):
    """One message of the source.

    id: the source's id.
    kind: see `MessageKind`.
    content: text and parts.
    created_at: seconds since the epoch, None if unknown.
    model: the model that generated it, None if unknown.
    ends_turn: the assistant turn ends with this part.
    finish_reason: why generation stopped, None if unknown.
    status: of the message.
    raw: the source's record; kept in the meta if the message is hidden.
    sampling: sampling settings, None if unknown.
    """

    id: str
    kind: MessageKind
    content: Content
    created_at: float | None = None
    model: str | None = None
    ends_turn: bool = False
    finish_reason: str | None = None
    status: Status = "complete"
    raw: Any = None
    sampling: Mapping[str, Any] | None = None


class _Chain(NamedTuple):
    """Messages on the way from the last node down to here, as a linked list. They belong to the next node.

    previous: the rest of the chain, None at its first message.
    message: the last message of the chain.
    length: messages in the chain.
    last_part: id of the last `part` in the chain, None if all messages are hidden.
    """

    previous: _Chain | None
    message: SourceMessage
    length: int
    last_part: str | None


class TurnJoiner:
    """Adds the nodes of one conversation to a draft."""

    def __init__(self, draft: Draft, place: str, report: ImportReport, labels: Mapping[str, str] | None = None) -> None:
        """Create a joiner.

        draft: receives the nodes.
        place: file and place, for the report.
        report: gets the messages that are left out.
        labels: labels by message id.
        """
        self.draft, self.place, self.report, self.labels = draft, place, report, labels or {}
        self.node_ids: dict[str, str] = {}
        self.added_ids: set[str] = set()
        self.num_bytes_left = MAX_REPEATED_BYTES

    def join(
        self,
        children: Mapping[str | None, Sequence[str]],
        kind_of: Callable[[str], MessageKind],
        load: Callable[[str], SourceMessage],
    ) -> None:
        """Add all messages.

        children: message ids by parent, in order, roots under None; without cycles or missing parents.
        kind_of: returns the kind of a message, cheaply; it may be called several times.
        load: returns a message; called once for each.
        """
        stack: list[tuple[str, str | None, _Chain | None]] = [(i, None, None) for i in reversed(children[None])]
        while stack:
            message_id, parent_id, chain = stack.pop()
            child_ids = children.get(message_id, ())
            parent_id, chain = self._visit(load(message_id), parent_id, chain)
            if chain is not None:
                is_end = chain.message.ends_turn or not child_ids
                is_end = is_end or any(kind_of(i) in ("user", "system") for i in child_ids)
                if chain.last_part is not None and is_end:
                    parent_id, chain = self._flush(parent_id, chain), None
                elif not child_ids:
                    self.report.drop(self.place, f"nothing follows the hidden message {chain.message.id}")
                elif len(child_ids) > 1:
                    parent_id, chain = self._visit_fork(parent_id, chain, len(child_ids))
            stack.extend((i, parent_id, chain) for i in reversed(child_ids))

    def node_of(self, source_id: str | None, parents: Mapping[str, str | None]) -> str | None:
        """Return the node that contains a message of the source, else the node of its nearest ancestor."""
        seen = set()
        while source_id is not None and source_id not in self.node_ids and source_id not in seen:
            seen.add(source_id)
            source_id = parents.get(source_id)
        return None if source_id is None else self.node_ids.get(source_id)

    def _visit(
        self, message: SourceMessage, parent_id: str | None, chain: _Chain | None
    ) -> tuple[str | None, _Chain | None]:
        """Add the message as a node or append it to the chain; return the parent and the chain of its children."""
        if message.kind == "nothing":
            return parent_id, chain
        if message.kind in ("user", "system"):
            if chain is not None and chain.last_part is not None:
                parent_id, chain = self._flush(parent_id, chain), None
            self._add(message.id, parent_id, "user" if message.kind == "user" else "system", chain, message)
            return message.id, None
        last_part = message.id if message.kind == "part" else chain.last_part if chain else None
        return parent_id, _Chain(chain, message, chain.length + 1 if chain else 1, last_part)

    def _flush(self, parent_id: str | None, chain: _Chain) -> str:
        """Add the chain as a node unless it was added before; return the node's id."""
        assert chain.last_part is not None, "hidden messages alone are no node"
        if chain.last_part not in self.added_ids:
            self._add(chain.last_part, parent_id, "assistant", chain)
        return chain.last_part

    def _visit_fork(self, parent_id: str | None, chain: _Chain, num_branches: int) -> tuple[str | None, _Chain | None]:
        """Repeat the chain on each branch, or end it at the fork if that exceeds a limit."""
        messages = _messages(chain)
        size = sum(len(json.dumps(message.content.parts)) + len(message.content.text) for message in messages)
        self.num_bytes_left -= size * (num_branches - 1)
        if chain.length <= MAX_REPEATED_MESSAGES and self.num_bytes_left >= 0:
            return parent_id, chain
        if chain.last_part is None:
            last_id = chain.message.id
            self.report.drop(self.place, f"hidden messages above {num_branches} branches, the last one {last_id}")
            return parent_id, None
        return self._flush(parent_id, chain), None

    def _add(
        self,
        node_id: str,
        parent_id: str | None,
        role: Role,
        chain: _Chain | None,
        last: SourceMessage | None = None,
    ) -> None:
        """Add one node that consists of the chain and then of `last`, if given."""
        content = Content()
        messages = [*_messages(chain), *([last] if last else [])]
        for message in messages:
            if message.kind == "hidden":
                content.add_part("hidden", raw=message.raw)
            else:
                content.extend(message.content)
            self.node_ids.setdefault(message.id, node_id)
        visible = [message for message in messages if message.kind != "hidden"]
        self.added_ids.add(node_id)
        self.draft.add(
            node_id,
            parent_id,
            role,
            content,
            _first(message.created_at for message in visible),
            model=_first(message.model for message in reversed(visible)),
            sampling=_first(message.sampling for message in reversed(visible)),
            finish_reason=visible[-1].finish_reason,
            status=visible[-1].status,
            label=_first(self.labels.get(message.id) for message in reversed(messages)),
        )


def _first(values: Iterable[Any]) -> Any:
    """Return the first value that is true, else None."""
    return next(filter(None, values), None)


def _messages(chain: _Chain | None) -> list[SourceMessage]:
    """Return the messages of a chain, the first one first."""
    messages = []
    while chain is not None:
        messages.append(chain.message)
        chain = chain.previous
    return messages[::-1]
