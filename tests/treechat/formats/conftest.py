"""A conversation with everything that the native format carries."""

import math

import pytest

from treechat.formats.document import Document, Message
from treechat.tree import Conversation, Node, Span, Turn, preview_of


def message(node_id, parent_id, role, text, **more):
    labels = more.pop("labels", ())
    fields = {"status": more.pop("status", "complete"), "bookmarked": more.pop("bookmarked", False)}
    node = Node(node_id, parent_id, role, created_at=1.5, preview=preview_of(text), **fields)
    return Message(node, text, labels=labels, **more)


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
