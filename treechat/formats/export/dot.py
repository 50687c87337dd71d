"""Write the runs or messages of conversations as a Graphviz digraph (DOT)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from treechat.formats.document import Document
from treechat.formats.export.diagram_boxes import box_line, boxes, title


def write(documents: Iterable[Document], messages: bool = False) -> Iterator[str]:
    """Yield the text of one digraph with a cluster per conversation. messages: one box per message, not per run."""
    yield "digraph treechat {\n  rankdir=TB;\n"
    yield '  node [shape=box, style="rounded,filled", fillcolor=white, fontname="sans-serif", fontsize=11];\n'
    for number, document in enumerate(documents):
        yield f"  subgraph cluster_{number} {{\n    label={_quote([title(document)])};\n"
        for box in boxes(document, messages):
            marks = ", fillcolor=lightyellow" if box.is_bookmarked else ""
            marks += ", fillcolor=lightgrey" if box.role == "system" and not box.is_bookmarked else ""
            marks += ", penwidth=3" if box.is_current else ""
            yield f"    c{number}_{box.index} [label={_quote(box.lines)}{marks}];\n"
            if box.parent is not None:
                yield f"    c{number}_{box.parent} -> c{number}_{box.index};\n"
        yield "  }\n"
    yield "}\n"


def _quote(lines: list[str]) -> str:
    # Graphviz also decodes HTML entities in labels.
    escaped = (box_line(line).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(escaped) + '"'
