"""Fixtures: a conversation with all fields of the native format, and an import of a file."""

import json
import math
from typing import Any, NamedTuple

import pytest

from treechat.formats.document import Document, ImportReport, Message
from treechat.formats.importers.registry import importer_for
from treechat.formats.reading.inputs import inputs_of
from treechat.tree import Conversation, Node, Span, Turn, preview_of


def message(node_id, parent_id, role, text, **more):
    labels = more.pop("labels", ())
    fields = {"status": more.pop("status", "complete"), "bookmarked": more.pop("bookmarked", False)}
    node = Node(node_id, parent_id, role, created_at=1.5, preview=preview_of(text), **fields)
    return Message(node, text, labels=labels, **more)


@pytest.fixture(params=[20_000, pytest.param(100_000, marks=pytest.mark.slow)])
def depth(request) -> int:
    """The length of a chain: 20 times the recursion limit, or the guaranteed 100,000 in slow tests."""
    return request.param


@pytest.fixture
def document() -> Document:
    turn = Turn("tiny", {"top_p": 0.9, "temperature": 0.7}, 7, "stop", 12, 8, 0, 4, 3, 0.0, 0.25, 0.5)
    span = Span("tok", (5, 6, 2), (-0.5, -math.inf, -0.25))
    messages = [
        message("r1", None, "system", "Be kind."),
        message("u1", "r1", "user", "# Not a heading of ours\nline two \u2028 é 😀"),
        message("a1", "u1", "assistant", "One.", turn=turn, spans=(span,), labels=("first",), bookmarked=True),
        message("u2", "a1", "user", "And then?"),
        message("a2", "u1", "assistant", "Two, cut", status="stopped", turn=Turn("tiny"), meta={"raw": [1, None]}),
        message("x1", None, "user", "another root"),
    ]
    return Document(Conversation("c1", "A title", 1.0, 2.0, "u2", {"language": "en"}), messages)


class ImportResult(NamedTuple):
    """The documents and the report of an import."""

    documents: list[Document]
    report: ImportReport

    def nodes(self, index: int = 0) -> dict[str, tuple[str | None, str, str]]:
        """Return (parent, role, text) by the source's id, parents first."""
        messages = self.documents[index].messages
        sources = {message.node.id: message.meta["id"] for message in messages}
        return {
            message.meta["id"]: (sources.get(message.node.parent_id), message.node.role, message.text)
            for message in messages
        }

    def message(self, source_id: str) -> Message:
        return next(m for d in self.documents for m in d.messages if m.meta["id"] == source_id)

    @property
    def current(self) -> str | None:
        """The source's id of the first document's current node."""
        document = self.documents[0]
        current_id = document.conversation.current_id
        return next((m.meta["id"] for m in document.messages if m.node.id == current_id), None)


@pytest.fixture
def read(tmp_path):
    """Return `read(data, form=None)`: imports a file with that content; checks that importer `form` recognises it."""

    def read_file(data: Any, form: str | None = None, name: str = "export.bin") -> ImportResult:
        path = tmp_path / name
        raw = data if isinstance(data, bytes | str) else json.dumps(data)
        path.write_bytes(raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw)
        report, documents, names = ImportReport(), [], set()
        with inputs_of(path) as files:
            for file in files:
                importer = importer_for(file)
                if importer is None:
                    continue
                names.add(importer.name)
                documents.extend(importer.read(file, report))
        assert form is None or names == {form}, names
        return ImportResult(documents, report)

    return read_file
