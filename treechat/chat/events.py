"""The events of a conversation, as values for a screen or a command line."""

from __future__ import annotations

from dataclasses import dataclass

from treechat.tree import Node, Turn


@dataclass(frozen=True, slots=True)
class NodeAdded:
    """A node was added to the tree. A reply has the status `streaming` and no text yet."""

    node: Node


@dataclass(frozen=True, slots=True)
class TextAdded:
    """More text of a streaming reply."""

    node_id: str
    text: str


@dataclass(frozen=True, slots=True)
class ReplyFinished:
    """A reply ended: complete, stopped or failed. `error` gives the reason of a failure and a hint."""

    node: Node
    turn: Turn
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SpansMade:
    """Progress of tokenizing a path that lacks spans, for example an imported one: `num` of `total` messages."""

    num: int
    total: int


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """The replay of turn `number` of `total` begins."""

    number: int
    total: int


ChatEvent = NodeAdded | TextAdded | ReplyFinished | SpansMade | ReplayProgress
