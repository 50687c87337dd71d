"""What happens in a conversation, as values that a screen or a command line can draw."""

from __future__ import annotations

from dataclasses import dataclass

from treechat.tree import Node, Turn


@dataclass(frozen=True, slots=True)
class NodeAdded:
    """A node came into the tree; a reply comes with status `streaming` and no text."""

    node: Node


@dataclass(frozen=True, slots=True)
class TextAdded:
    """More text of a streaming reply."""

    node_id: str
    text: str


@dataclass(frozen=True, slots=True)
class ReplyFinished:
    """A reply ended: complete, stopped or failed. `error` says why it failed and what to do."""

    node: Node
    turn: Turn
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SpansMade:
    """A path without tokens for this model, an imported one say, gets them: `num` messages of `total` have them."""

    num: int
    total: int


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """Of `total` turns that are replayed, the `number`-th begins."""

    number: int
    total: int


ChatEvent = NodeAdded | TextAdded | ReplyFinished | SpansMade | ReplayProgress
