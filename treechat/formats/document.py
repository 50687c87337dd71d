"""The values that importers yield and exporters take: a conversation with its messages, and an import report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from treechat.tree import Conversation, Node, Span, Tree, Turn


@dataclass(frozen=True, slots=True)
class Message:
    """One node with its text and everything stored for it.

    node: the node of the tree.
    text: the whole text of the message.
    turn: the provenance of a generated node, None for others.
    spans: at most one per tokenizer.
    labels: all labels, the node's own label included.
    meta: all other data of the source, JSON values.
    """

    node: Node
    text: str
    turn: Turn | None = None
    spans: tuple[Span, ...] = ()
    labels: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)


class Source(NamedTuple):
    """The origin of an imported conversation.

    name: name of the format.
    id: the conversation's id in the source.
    """

    name: str
    id: str


@dataclass(frozen=True, slots=True)
class Document:
    """One conversation, parents before children, siblings in order, without cycles or missing parents.

    conversation: title, times and current node.
    messages: the nodes in that order.
    source: the origin that the file names; None if the conversation was created in the program that wrote the file.
    is_part: a later document of the same file may contain more of this conversation.
    """

    conversation: Conversation
    messages: list[Message]
    source: Source | None = None
    is_part: bool = False

    @property
    def tree(self) -> Tree:
        """The structure of the messages; a new object at each access."""
        return Tree([message.node for message in self.messages])

    @property
    def num_forks(self) -> int:
        """The number of nodes with more than one child."""
        parents = Counter(message.node.parent_id for message in self.messages)
        return sum(count > 1 for parent_id, count in parents.items() if parent_id is not None)


MAX_SENTENCES = 10_000
"""Limit on the sentences of each kind. More are only counted, because a hostile file must not fill memory."""


@dataclass(slots=True)
class ImportReport:
    """The result of an import: counts, and one sentence for each thing that was left out.

    conversations: new conversations.
    nodes: added nodes.
    forks: added forks.
    imported: the same counts for each conversation that is new or got nodes.
    known_ids: conversations of which a document had nothing new.
    dropped: details that were left out or repaired, with the reason.
    failed: records and files that could not be read, with the reason.
    num_omitted: sentences beyond `MAX_SENTENCES`.
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
        """Count the additions to one conversation.

        conversation_id: id in the store.
        title: title of the conversation.
        source: its origin.
        is_new: the import created it.
        num_nodes: added nodes.
        num_forks: added forks.
        """
        self.conversations += is_new
        self.nodes += num_nodes
        self.forks += num_forks
        if is_new or num_nodes:
            counts = {"new": is_new, "nodes": num_nodes, "forks": num_forks}
            self.imported.append({"id": conversation_id, "title": title, "source": source.name, **counts})
        else:
            self.known_ids.add(conversation_id)

    def add(self, other: ImportReport) -> None:
        """Add the counts of another report; its sentences are not added."""
        self.conversations += other.conversations
        self.nodes += other.nodes
        self.forks += other.forks
        self.imported += other.imported
        self.known_ids |= other.known_ids

    @property
    def num_unchanged(self) -> int:
        """The number of conversations that had nothing new."""
        return len(self.known_ids - {entry["id"] for entry in self.imported})

    def drop(self, place: str, why: str) -> None:
        """Report a detail that is left out or repaired."""
        self._append(self.dropped, f"{place}: {why}")

    def fail(self, place: str, why: str) -> None:
        """Report a record or file that cannot be read. `place` is left out if `why` begins with it."""
        self._append(self.failed, why if why.startswith(place) else f"{place}: {why}")

    def _append(self, sentences: list[str], sentence: str) -> None:
        if len(sentences) < MAX_SENTENCES:
            sentences.append(sentence)
        else:
            self.num_omitted += 1

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values, for `import --json`."""
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
