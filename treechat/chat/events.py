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
class Replaying:
    """Of `total` turns that are replayed, the `number`-th begins."""

    number: int
    total: int


ChatEvent = NodeAdded | TextAdded | ReplyFinished | SpansMade | Replaying


@dataclass(frozen=True, slots=True)
class Cost:
    """What resuming at a node takes: tokens found in device memory, in host memory, to be computed; seconds or None."""

    reused: int
    restored: int
    computed: int
    seconds: float | None = None

    @property
    def mark(self) -> str:
        """`●` resident, `◐` in part or in host memory, `○` cold."""
        if self.computed <= 1 and not self.restored:
            return "●"
        return "◐" if self.reused > 0 or self.restored else "○"
