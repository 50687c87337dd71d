"""What every importer yields and every exporter takes: a conversation with its messages, and a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from treechat.tree import Conversation, Node, Span, Tree, Turn


@dataclass(frozen=True, slots=True)
class Message:
    """One node with all that belongs to it.

    labels: the node's own label, if any, is among them. spans: at most one per tokenizer. meta: whatever else the
    source knew, JSON values.
    """

    node: Node
    text: str
    turn: Turn | None = None
    spans: tuple[Span, ...] = ()
    labels: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)


class Source(NamedTuple):
    """Where a conversation was imported from: the name of the format, and the conversation's id there."""

    name: str
    id: str


@dataclass(frozen=True, slots=True)
class Document:
    """One conversation, parents before children, siblings in order, without cycles or missing parents.

    source: where it came from before it was written in the format that it was read from; None where it was made there.
    is_part: more of the conversation may come, in a later document of the same file.
    """

    conversation: Conversation
    messages: list[Message]
    source: Source | None = None
    is_part: bool = False

    @property
    def tree(self) -> Tree:
        return Tree([message.node for message in self.messages])

    @property
    def num_forks(self) -> int:
        """Nodes with more than one child."""
        parents = Counter(message.node.parent_id for message in self.messages)
        return sum(count > 1 for parent_id, count in parents.items() if parent_id is not None)


MAX_SENTENCES = 10_000
"""Sentences of each kind that a report keeps; more are counted only, so that a hostile file cannot fill the memory."""


@dataclass(slots=True)
class ImportReport:
    """What came in, what was left out and why, what could not be read at all. One sentence per entry.

    conversations, nodes, forks: counts of what was added. imported: the same for each conversation that got something.
    known: ids of those that had nothing new at some point of the file.
    num_unsaid: sentences beyond `MAX_SENTENCES`.
    """

    conversations: int = 0
    nodes: int = 0
    forks: int = 0
    imported: list[dict[str, Any]] = field(default_factory=list)
    known_ids: set[str] = field(default_factory=set)
    dropped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    num_omitted: int = 0

    def count(
        self, conversation_id: str, title: str, source: Source, is_new: bool, num_nodes: int, num_forks: int
    ) -> None:
        """Note what a conversation got."""
        self.conversations += is_new
        self.nodes += num_nodes
        self.forks += num_forks
        if is_new or num_nodes:
            counts = {"new": is_new, "nodes": num_nodes, "forks": num_forks}
            self.imported.append({"id": conversation_id, "title": title, "source": source.name, **counts})
        else:
            self.known_ids.add(conversation_id)

    def add(self, other: ImportReport) -> None:
        """Take over the counts of another report."""
        self.conversations += other.conversations
        self.nodes += other.nodes
        self.forks += other.forks
        self.imported += other.imported
        self.known_ids |= other.known_ids

    @property
    def num_unchanged(self) -> int:
        """Conversations that were read and had nothing new."""
        return len(self.known_ids - {entry["id"] for entry in self.imported})

    def drop(self, place: str, why: str) -> None:
        self._append(self.dropped, f"{place}: {why}")

    def fail(self, place: str, why: str) -> None:
        """why: may begin with the name in `where` itself, which is said once."""
        self._append(self.failed, why if why.startswith(place) else f"{place}: {why}")

    def _append(self, sentences: list[str], sentence: str) -> None:
        if len(sentences) < MAX_SENTENCES:
            sentences.append(sentence)
        else:
            self.num_omitted += 1

    def to_dict(self) -> dict[str, Any]:
        return {
            "conversations": self.conversations,
            "nodes": self.nodes,
            "forks": self.forks,
            "imported": self.imported,
            "unchanged": self.num_unchanged,
            "dropped": self.dropped,
            "failed": self.failed,
            "unsaid": self.num_omitted,
        }
