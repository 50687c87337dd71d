"""The values that the store takes and returns, apart from those of `treechat.tree`, and the ids of nodes."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from treechat.tree import Node, Role, Span, Status, Turn

AddedKind = Literal["graft", "rebase"]
EventKind = Literal["hide", "label", "bookmark", "move", "rename", "hide_conversation", "graft", "rebase"]


@dataclass(frozen=True, slots=True)
class ConversationInfo:
    """A conversation in a list.

    id: its id.
    title: its title.
    num_nodes: visible nodes.
    num_forks: visible forks.
    created_at: seconds since the epoch.
    updated_at: seconds since the epoch.
    current_id: the current node; None if there is none yet.
    """

    id: str
    title: str
    num_nodes: int
    num_forks: int
    created_at: float
    updated_at: float
    current_id: str | None = None


@dataclass(frozen=True, slots=True)
class NewNode:
    """A node to add.

    parent_id: None for a root. The parent may come later in the same batch.
    role: role of the message.
    text: its text.
    id: None draws one.
    status: how the message ended.
    created_at: seconds since the epoch; None for now.
    meta: a JSON object stored with the node.
    label: name given by the user.
    bookmarked: whether it has a bookmark.
    hidden: whether it is hidden, with all nodes below it.
    spans: its spans, at most one per tokenizer.
    turn: its provenance; None if it was not generated.
    """

    parent_id: str | None
    role: Role
    text: str
    id: str | None = None
    status: Status = "complete"
    created_at: float | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    label: str | None = None
    bookmarked: bool = False
    hidden: bool = False
    spans: Sequence[Span] = ()
    turn: Turn | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A change of structure that can be undone.

    id: number of the event.
    conversation_id: its conversation.
    kind: the kind of change.
    node_id: the changed node; None if the conversation itself changed.
    before: the old value. hide, bookmark, hide_conversation: bool. label: str or None. move: parent id or None.
        rename: the title. graft, rebase: whether the added branch is hidden.
    after: the new value, of the same type.
    created_at: seconds since the epoch.
    """

    id: int
    conversation_id: str
    kind: EventKind
    node_id: str | None
    before: Any
    after: Any
    created_at: float


class Hit(NamedTuple):
    """A node that a search found.

    node_id: the node.
    conversation_id: its conversation.
    title: title of that conversation.
    snippet: plain text around the match, on one line.
    """

    node_id: str
    conversation_id: str
    title: str
    snippet: str


class NamedNode(NamedTuple):
    """The node of a name, and the id of its conversation."""

    node: Node
    conversation_id: str


ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32 in lower case: without i, l, o and u, which are easy to misread."""

ID_LEN = 16
SHORT_LEN = 8
"""Characters of the displayed short form: 40 random bits, probably unique among a million nodes."""


def new_id() -> str:
    """A new id of `ID_LEN` characters, 80 random bits. The rows keep the order in time, not the ids."""
    value = secrets.randbits(5 * ID_LEN)
    return "".join(ALPHABET[(value >> shift) & 31] for shift in range(5 * (ID_LEN - 1), -1, -5))


def short_id(full_id: str) -> str:
    """The prefix for display."""
    return full_id[:SHORT_LEN]
