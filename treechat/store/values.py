"""What the store takes and gives beside the values of `treechat.tree`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from treechat.tree import Node, Role, Span, Status, Turn

AddedKind = Literal["graft", "rebase"]
EventKind = Literal["hide", "label", "bookmark", "move", "rename", "hide_conversation", "graft", "rebase"]


@dataclass(frozen=True, slots=True)
class ConversationInfo:
    """One row of a list of conversations. Hidden nodes are not counted; times are seconds since the epoch."""

    id: str
    title: str
    num_nodes: int
    num_forks: int
    created_at: float
    updated_at: float
    current_id: str | None = None


@dataclass(frozen=True, slots=True)
class NewNode:
    """A node to add. `id` None draws one; `created_at` None is now. Parents may come later in the same batch."""

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
    """One change of structure that can be undone. `before` and `after` are the values of what `kind` changes:

    hide, bookmark, hide_conversation: bool. label: str or None. move: parent id or None. rename: the title.
    graft, rebase: whether what was added is hidden.
    node_id is None where the change is to the conversation itself.
    """

    id: int
    conversation_id: str
    kind: EventKind
    node_id: str | None
    before: Any
    after: Any
    created_at: float


class Hit(NamedTuple):
    """One node found by a search; the snippet is plain text on one line."""

    node_id: str
    conversation_id: str
    title: str
    snippet: str


class Resolved(NamedTuple):
    """The node that a name stands for, and the conversation that it is in."""

    node: Node
    conversation_id: str
