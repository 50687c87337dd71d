"""The structure of conversations as a graph, for Graphviz (DOT) and for Mermaid: a box per run, or per message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from treechat.formats.document import Document
from treechat.formats.export.document_runs import runs_of
from treechat.tree import Node

LABEL_CHARS = 60
_FORBIDDEN = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters and those that turn the direction of text."""


@dataclass(frozen=True, slots=True)
class Box:
    """parent: index of the box above. lines: texts from outside, not yet escaped."""

    index: int
    parent: int | None
    lines: list[str]
    role: str
    is_current: bool
    is_bookmarked: bool


def boxes(document: Document, messages: bool) -> Iterator[Box]:
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
    return document.conversation.title or "Untitled"


def box_line(line: str) -> str:
    """One short line without characters that a drawing cannot have."""
    line = _FORBIDDEN.sub("\ufffd", " ".join(line.split()))
    return line if len(line) <= LABEL_CHARS else line[: LABEL_CHARS - 1] + "…"
