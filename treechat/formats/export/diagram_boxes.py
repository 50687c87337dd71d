"""The boxes of a diagram of a conversation: one per run, or one per message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from treechat.formats.document import Document
from treechat.formats.export.document_runs import runs_of
from treechat.tree import Node

LABEL_CHARS = 60
_FORBIDDEN = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, bidi controls and surrogates."""


@dataclass(frozen=True, slots=True)
class Box:
    """One box.

    index: position among all boxes, from 0.
    parent: index of the parent box, None at a root.
    lines: untrusted texts, not escaped.
    role: role of the first message.
    is_current: the box contains the current message.
    is_bookmarked: the box contains a bookmarked message.
    """

    index: int
    parent: int | None
    lines: list[str]
    role: str
    is_current: bool
    is_bookmarked: bool


def boxes(document: Document, messages: bool) -> Iterator[Box]:
    """Yield the boxes, parents first. messages: one box per message, not per run."""
    tree = document.tree
    current_id = document.conversation.current_id
    if messages:
        index_of: dict[str, int] = {}
        for index, node_id in enumerate(tree.walk()):
            node, index_of[node_id] = tree[node_id], index
            parent = index_of[node.parent_id] if node.parent_id is not None else None
            yield Box(index, parent, [_name(node), node.role], node.role, node_id == current_id, node.bookmarked)
        return
    for run in runs_of(tree):
        nodes = [tree[node_id] for node_id in run.node_ids]
        count = f"{len(nodes):,} message{'s' if len(nodes) > 1 else ''}"
        names = [node.label for node in nodes[1:] if node.label][:3]
        lines = [f"{run.number} {_name(nodes[0])}", *names, count]
        is_bookmarked = any(node.bookmarked for node in nodes)
        yield Box(run.index, run.parent, lines, nodes[0].role, current_id in run.node_ids, is_bookmarked)


def _name(node: Node) -> str:
    return f"{'★ ' if node.bookmarked else ''}{node.label or node.preview or '(empty)'}"


def title(document: Document) -> str:
    """Return the title of the conversation, or `Untitled`."""
    return document.conversation.title or "Untitled"


def box_line(line: str) -> str:
    """Return the text as one line of at most `LABEL_CHARS` characters, without control characters."""
    line = _FORBIDDEN.sub("\ufffd", " ".join(line.split()))
    return line if len(line) <= LABEL_CHARS else line[: LABEL_CHARS - 1] + "…"
