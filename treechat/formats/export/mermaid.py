"""Write the runs or messages of conversations as a Mermaid flowchart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from treechat.formats.document import Document
from treechat.formats.export.diagram_boxes import box_line, boxes, title

_SPECIAL = re.compile(r"[^\w ,.;:!?()+*/=-]|_")


def write(documents: Iterable[Document], messages: bool = False) -> Iterator[str]:
    """Yield the text of one flowchart with a subgraph per conversation. messages: one box per message, not per run.

    Renderers accept at most 500 edges by default (`maxEdges`).
    """
    yield "flowchart TD\n"
    for number, document in enumerate(documents):
        yield f"  subgraph c{number}[{_quote([title(document)])}]\n    direction TB\n"
        for box in boxes(document, messages):
            name = f"c{number}_{box.index}"
            yield f"    {name}[{_quote(box.lines)}]\n"
            if box.parent is not None:
                yield f"    c{number}_{box.parent} --> {name}\n"
            for style in (["bookmarked"] if box.is_bookmarked else []) + (["current"] if box.is_current else []):
                yield f"    class {name} {style}\n"
        yield "  end\n"
    yield "  classDef bookmarked fill:#fff3bf,color:#000\n  classDef current stroke-width:4px\n"


def _quote(lines: list[str]) -> str:
    """Quote the lines as one label. Special characters become numeric codes: no Markdown, HTML or directive remains."""
    escaped = (_SPECIAL.sub(lambda match: f"#{ord(match[0])};", box_line(line)) for line in lines)
    return '"' + "<br/>".join(escaped) + '"'
