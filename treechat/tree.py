"""The values of the app: Conversation, Node, Turn, Span, Run, and Tree with its walks.

Imports no module of ours. Every walk is iterative: trees may be 100,000 nodes deep.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
Status = Literal["complete", "streaming", "stopped", "interrupted", "failed"]

ROLES: tuple[Role, ...] = ("system", "user", "assistant")
STATUSES: tuple[Status, ...] = ("complete", "streaming", "stopped", "interrupted", "failed")

PREVIEW_LEN = 120
"""Characters of a node's text that the tree keeps. The whole text is read only to show it."""


MAX_CACHED_PATHS = 16
"""Paths that a tree caches until its structure changes: a window needs the same few at each key."""


@dataclass(frozen=True, slots=True)
class Span:
    """The exact token ids that a node adds to its path, template tokens included.

    tokenizer: fingerprint of the tokenizer and template that the ids belong to.
    ids: token ids, in order; may be empty.
    logprobs: one natural-log probability per id; None if the span was not sampled.
    """

    tokenizer: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """The provenance of one generated node. Counts are tokens, times are seconds; None: unknown, or not known yet.

    model: name of the model.
    sampling: sampling parameters by name; an import may add others.
    seed: the seed of the sampling.
    finish_reason: stop, length, cancelled or error; an import may have others.
    prompt_tokens: tokens of the path.
    cached_tokens: prompt tokens with KV in device memory.
    restored_tokens: prompt tokens with KV in host memory.
    computed_tokens: prompt tokens that were prefilled.
    completion_tokens: generated tokens.
    queue_s: time before the prefill.
    ttft_s: time until the first token.
    total_s: time until the end.
    """

    model: str
    sampling: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    restored_tokens: int | None = None
    computed_tokens: int | None = None
    completion_tokens: int | None = None
    queue_s: float | None = None
    ttft_s: float | None = None
    total_s: float | None = None

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens per second after the first one; None if a count or a time is missing."""
        if self.total_s is None or self.ttft_s is None or not self.completion_tokens:
            return None
        decode_s = self.total_s - self.ttft_s
        return (self.completion_tokens - 1) / decode_s if decode_s > 0 and self.completion_tokens > 1 else None


@dataclass(frozen=True, slots=True)
class Node:
    """One message in the tree, without its span, its turn, and the text beyond the preview.

    id: node id.
    parent_id: None for a root.
    role: author of the message.
    status: state of the text.
    created_at: seconds since the epoch.
    preview: the text's first `PREVIEW_LEN` characters on one line.
    label: a name given by the user, or None.
    bookmarked: whether the user bookmarked it.
    hidden: the node and its subtree are deleted; an undo shows them again.
    """

    id: str
    parent_id: str | None
    role: Role
    status: Status = "complete"
    created_at: float = 0.0
    preview: str = ""
    label: str | None = None
    bookmarked: bool = False
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation without its nodes. Times are seconds since the epoch.

    id: conversation id.
    title: may be empty.
    created_at: time of creation.
    updated_at: time of the last change.
    current_id: the current node of the last window, or None.
    meta: further values by key.
    """

    id: str
    title: str
    created_at: float
    updated_at: float
    current_id: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


THOUGHT_TAGS: Mapping[str, str] = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "[THINK]": "[/THINK]",
}
"""The tags that models write before and after their thoughts."""

_THOUGHTS = "|".join(f"{re.escape(begin)}.*?{re.escape(end)}" for begin, end in THOUGHT_TAGS.items())
_PLACEHOLDERS = r"\[(?:thoughts|(?:called|result of) [^\]\n]*|(?:image|file|audio)(?:: [^\]\n]*)?)\](?=\s|$)"
_SKIPPED = re.compile(rf"\s*(?:{_THOUGHTS}|{_PLACEHOLDERS})", re.DOTALL)


def preview_of(text: str) -> str:
    """Return the first `PREVIEW_LEN` characters of `text` with white space folded.

    Leading thoughts and placeholders of an import are skipped, unless the text contains nothing else.
    """
    start = 0
    while (skipped := _SKIPPED.match(text, start)) is not None:
        start = skipped.end()
    preview = " ".join(text[start : start + PREVIEW_LEN * 4].split())[:PREVIEW_LEN]
    return preview or " ".join(text[: PREVIEW_LEN * 4].split())[:PREVIEW_LEN]


@dataclass(frozen=True, slots=True)
class Run:
    """A maximal chain of visible nodes without a fork.

    index: position among all runs of the tree, from 0.
    parent: index of the run above; None at a root.
    depth: number of forks above.
    place: position of the first node among its siblings, from 1.
    node_ids: the nodes, in order.
    """

    index: int
    parent: int | None
    depth: int
    place: int
    node_ids: list[str]


class Tree:
    """The structure of one conversation: nodes by id, children derived from parent ids.

    Children keep the order of insertion. `version` increases with each change of structure, but not of a preview or a
    status. A layout is valid until `version` changes.
    """

    def __init__(self, nodes: Iterator[Node] | list[Node] | tuple[Node, ...] = ()) -> None:
        self.nodes: dict[str, Node] = {}
        self.version = 0
        self._children: dict[str | None, list[str]] = {None: []}
        self._num_hidden = 0
        self._num_visible = (0, 0)
        self._paths: tuple[int, dict[str | None, list[str]]] = (0, {})
        for node in nodes:
            self.add(node)

    def __len__(self) -> int:
        return len(self.nodes)

    def __contains__(self, node_id: object) -> bool:
        return node_id in self.nodes

    def __getitem__(self, node_id: str) -> Node:
        return self.nodes[node_id]

    def add(self, node: Node) -> None:
        """Add a node as the last child of its parent. The parent may be added later."""
        assert node.id not in self.nodes, f"node {node.id} is in the tree already"
        self.nodes[node.id] = node
        self._children.setdefault(node.parent_id, []).append(node.id)
        self._children.setdefault(node.id, [])
        self._num_hidden += node.hidden
        self.version += 1

    def update(self, node: Node) -> None:
        """Replace the node of the same id. With a new parent it becomes the last child there."""
        old = self.nodes[node.id]
        self.nodes[node.id] = node
        self._num_hidden += node.hidden - old.hidden
        if old.parent_id != node.parent_id:
            self._children[old.parent_id].remove(node.id)
            self._children.setdefault(node.parent_id, []).append(node.id)
        if old.parent_id != node.parent_id or old.hidden != node.hidden:
            self.version += 1

    def change(self, node_id: str, **fields: Any) -> Node:
        """Replace some fields of a node; returns the new node."""
        node = replace(self.nodes[node_id], **fields)
        self.update(node)
        return node

    def children(self, node_id: str | None, hidden: bool = False) -> list[str]:
        """Return the ids of the children, oldest first; for None, of the roots. hidden: include hidden nodes."""
        ids = self._children.get(node_id, [])
        return list(ids) if hidden or not self._num_hidden else [i for i in ids if not self.nodes[i].hidden]

    def only_child(self, node_id: str | None) -> str | None:
        """Return the child of a node with exactly one child, else None."""
        ids = self._children.get(node_id, ())
        if self._num_hidden:
            ids = self.children(node_id)
        return ids[0] if len(ids) == 1 else None

    @property
    def roots(self) -> list[str]:
        return self.children(None)

    def siblings(self, node_id: str) -> list[str]:
        """Return the ids of all visible children of the node's parent, including the node."""
        return self.children(self.nodes[node_id].parent_id)

    def is_fork(self, node_id: str | None) -> bool:
        num = len(self._children.get(node_id, ()))
        return num > 1 and (not self._num_hidden or len(self.children(node_id)) > 1)

    def path(self, node_id: str | None) -> list[str]:
        """Return the ids from the root to the node, both included; empty for None."""
        version, paths = self._paths
        if version != self.version:
            # Bind a new pair and leave the old one unchanged, since other threads may read it.
            version, paths = self._paths = (self.version, {})
        cached = paths.get(node_id)
        if cached is None:
            ids: list[str] = []
            current = node_id
            while current is not None:
                ids.append(current)
                current = self.nodes[current].parent_id
            ids.reverse()
            if len(paths) >= MAX_CACHED_PATHS:
                paths.clear()
            cached = paths[node_id] = ids
        return list(cached)

    def is_ancestor(self, ancestor_id: str, node_id: str) -> bool:
        """Return whether `ancestor_id` is the node itself or one of its ancestors."""
        current: str | None = node_id
        while current is not None:
            if current == ancestor_id:
                return True
            current = self.nodes[current].parent_id
        return False

    def common_ancestor(self, a_id: str, b_id: str) -> str | None:
        """Return the deepest node on both paths, or None if their roots differ."""
        common = None
        for a, b in zip(self.path(a_id), self.path(b_id), strict=False):
            if a != b:
                break
            common = a
        return common

    def subtree(self, node_id: str, hidden: bool = False) -> Iterator[str]:
        """Yield the ids of the node and its descendants, parents before children, siblings in order."""
        stack = [node_id]
        while stack:
            current = stack.pop()
            yield current
            stack.extend(reversed(self.children(current, hidden)))

    def walk(self, hidden: bool = False) -> Iterator[str]:
        """Yield the ids of all nodes, parents before children, roots and siblings in order."""
        for root_id in self.children(None, hidden):
            yield from self.subtree(root_id, hidden)

    def chain(self, head_id: str) -> list[str]:
        """Return the ids of the node and those below it, up to the next fork or leaf."""
        ids = [head_id]
        while (child_id := self.only_child(ids[-1])) is not None:
            ids.append(child_id)
        return ids

    def run_of(self, node_id: str) -> list[str]:
        """Return the ids of the run that contains the node, in order."""
        head_id = node_id
        while (parent_id := self.nodes[head_id].parent_id) is not None and not self.is_fork(parent_id):
            head_id = parent_id
        return self.chain(head_id)

    def runs(self) -> Iterator[Run]:
        """Yield all visible runs, parents before children, roots and siblings in order."""
        roots: list[tuple[str, int | None, int, int]] = [(id_, None, 0, i) for i, id_ in enumerate(self.roots, 1)]
        stack = roots[::-1]
        index = 0
        while stack:
            head_id, parent, depth, place = stack.pop()
            node_ids = self.chain(head_id)
            yield Run(index, parent, depth, place, node_ids)
            below = [(id_, index, depth + 1, i) for i, id_ in enumerate(self.children(node_ids[-1]), 1)]
            stack.extend(reversed(below))
            index += 1

    @property
    def num_visible(self) -> int:
        """The number of nodes that are neither hidden nor below a hidden node; counted once for each version."""
        if not self._num_hidden:
            return len(self)
        if self._num_visible[0] != self.version:
            self._num_visible = (self.version, sum(1 for _ in self.walk()))
        return self._num_visible[1]

    def leaf(self, node_id: str) -> str:
        """Return the leaf that is reached by the newest visible child of each node."""
        while True:
            child_id = self.only_child(node_id)
            if child_id is None:
                children = self.children(node_id)
                if not children:
                    return node_id
                child_id = children[-1]
            node_id = child_id

    def is_hidden(self, node_id: str) -> bool:
        """Return whether the node or one of its ancestors is hidden."""
        current: str | None = node_id
        while current is not None:
            node = self.nodes[current]
            if node.hidden:
                return True
            current = node.parent_id
        return False
