"""Write Markdown: one branch as a chat, or the whole tree with a heading per run. There is no import for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from treechat.formats.document import Document, Message
from treechat.formats.export.document_runs import runs_of

ROLE_NAMES = {"system": "System", "user": "You", "assistant": "Assistant"}


def write(document: Document) -> Iterator[str]:
    """Yield the document as a chat if it is a single branch, else as a tree."""
    tree = document.tree
    chain = list(tree.walk())
    if len(tree.roots) <= 1 and not any(tree.is_fork(node_id) for node_id in chain):
        return write_branch(document, chain)
    return write_tree(document)


def write_branch(document: Document, node_ids: Sequence[str]) -> Iterator[str]:
    """Yield the messages of one path, each under a heading with its role."""
    by_id = {message.node.id: message for message in document.messages}
    yield _title(document)
    for node_id in node_ids:
        yield _message(by_id[node_id], level=2)


def write_tree(document: Document) -> Iterator[str]:
    """Yield every branch, each run under a heading numbered by the forks above it (1, 1.2, 1.2.1)."""
    by_id = {message.node.id: message for message in document.messages}
    tree = document.tree
    yield _title(document)
    for run in runs_of(tree):
        node = tree[run.node_ids[0]]
        name = node.label or node.preview[:60] or "(empty)"
        yield f"## {run.number} · {_one_line(name)}\n\n"
        for node_id in run.node_ids:
            yield _message(by_id[node_id], level=3)


def _title(document: Document) -> str:
    return f"# {_one_line(document.conversation.title) or 'Untitled'}\n\n"


def _message(message: Message, level: int) -> str:
    node = message.node
    notes = [f"“{_one_line(label)}”" for label in message.labels] + (["★"] if node.bookmarked else [])
    notes += [node.status] if node.status != "complete" else []
    heading = " · ".join([ROLE_NAMES[node.role], *notes])
    return f"{'#' * level} {heading}\n\n{message.text.strip()}\n\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())
