"""The structure of conversations as a graph, for Graphviz (DOT) and for Mermaid: a box per run, or per message."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from treechat.formats.document import Document
from treechat.formats.export.document_runs import runs_of
from treechat.tree import Node

LABEL_CHARS = 60
_FORBIDDEN = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters and those that turn the direction of text."""
_PLAIN = re.compile(r"[^\w ,.;:!?()+*/=-]|_")


@dataclass(frozen=True, slots=True)
class _Box:
    """parent: index of the box above. lines: texts from outside, not yet escaped."""

    index: int
    parent: int | None
    lines: list[str]
    role: str
    is_current: bool
    is_bookmarked: bool


def write_dot(documents: Iterable[Document], messages: bool = False) -> Iterator[str]:
    """One digraph, conversations as clusters. messages: a box per message, not per run."""
    yield "digraph treechat {\n  rankdir=TB;\n"
    yield '  node [shape=box, style="rounded,filled", fillcolor=white, fontname="sans-serif", fontsize=11];\n'
    for number, document in enumerate(documents):
        yield f"  subgraph cluster_{number} {{\n    label={_dot_text([_title(document)])};\n"
        for box in _boxes(document, messages):
            marks = ", fillcolor=lightyellow" if box.is_bookmarked else ""
            marks += ", fillcolor=lightgrey" if box.role == "system" and not box.is_bookmarked else ""
            marks += ", penwidth=3" if box.is_current else ""
            yield f"    c{number}_{box.index} [label={_dot_text(box.lines)}{marks}];\n"
            if box.parent is not None:
                yield f"    c{number}_{box.parent} -> c{number}_{box.index};\n"
        yield "  }\n"
    yield "}\n"


def write_mermaid(documents: Iterable[Document], messages: bool = False) -> Iterator[str]:
    """One flowchart, conversations as subgraphs. Renderers take 500 edges at most unless told otherwise (maxEdges)."""
    yield "flowchart TD\n"
    for number, document in enumerate(documents):
        yield f"  subgraph c{number}[{_mermaid_text([_title(document)])}]\n    direction TB\n"
        for box in _boxes(document, messages):
            name = f"c{number}_{box.index}"
            yield f"    {name}[{_mermaid_text(box.lines)}]\n"
            if box.parent is not None:
                yield f"    c{number}_{box.parent} --> {name}\n"
            for style in (["bookmarked"] if box.is_bookmarked else []) + (["current"] if box.is_current else []):
                yield f"    class {name} {style}\n"
        yield "  end\n"
    yield "  classDef bookmarked fill:#fff3bf,color:#000\n  classDef current stroke-width:4px\n"


def _boxes(document: Document, messages: bool) -> Iterator[_Box]:
    tree = document.tree
    current_id = document.conversation.current_id
    if messages:
        index_of: dict[str, int] = {}
        for index, node_id in enumerate(tree.walk()):
            node, index_of[node_id] = tree[node_id], index
            above = index_of[node.parent_id] if node.parent_id is not None else None
            yield _Box(index, above, [_name(node), node.role], node.role, node_id == current_id, node.bookmarked)
        return
    for run in runs_of(tree):
        nodes = [tree[node_id] for node_id in run.node_ids]
        count = f"{len(nodes):,} message{'s' if len(nodes) > 1 else ''}"
        names = [node.label for node in nodes[1:] if node.label][:3]
        lines = [f"{run.number} {_name(nodes[0])}", *names, count]
        is_bookmarked = any(node.bookmarked for node in nodes)
        yield _Box(run.index, run.parent, lines, nodes[0].role, current_id in run.node_ids, is_bookmarked)


def _name(node: Node) -> str:
    return f"{'★ ' if node.bookmarked else ''}{node.label or node.preview or '(empty)'}"


def _title(document: Document) -> str:
    return document.conversation.title or "Untitled"


def _shown(line: str) -> str:
    """One short line without characters that a drawing cannot have."""
    line = _FORBIDDEN.sub("\ufffd", " ".join(line.split()))
    return line if len(line) <= LABEL_CHARS else line[: LABEL_CHARS - 1] + "…"


def _dot_text(lines: list[str]) -> str:
    # Graphviz reads HTML entities in its labels, too.
    escaped = (_shown(line).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(escaped) + '"'


def _mermaid_text(lines: list[str]) -> str:
    """Everything but letters, digits and harmless signs by its number: no Markdown, no HTML, no directive."""
    escaped = (_PLAIN.sub(lambda match: f"#{ord(match[0])};", _shown(line)) for line in lines)
    return '"' + "<br/>".join(escaped) + '"'
