"""Markdown, written: one branch as a chat, or the whole tree with a heading per run. Nothing reads it back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from treechat.formats.document import Document, Message
from treechat.tree import Tree

NAMES = {"system": "System", "user": "You", "assistant": "Assistant"}


def write_branch(document: Document, node_ids: Sequence[str]) -> Iterator[str]:
    """The messages of one path, each under a heading with its role."""
    by_id = {message.node.id: message for message in document.messages}
    yield _title(document)
    for node_id in node_ids:
        yield _message(by_id[node_id], level=2)


def write_tree(document: Document) -> Iterator[str]:
    """Every branch: each run under a heading numbered by the forks that lead to it (1, 1.2, 1.2.1)."""
    by_id = {message.node.id: message for message in document.messages}
    tree = document.tree
    yield _title(document)
    stack = [(root_id, str(i)) for i, root_id in reversed(list(enumerate(tree.roots, 1)))]
    while stack:
        node_id, number = stack.pop()
        run = _run(tree, node_id)
        node = tree[node_id]
        name = node.label or node.preview[:60] or "(empty)"
        yield f"## {number} · {_one_line(name)}\n\n"
        for run_id in run:
            yield _message(by_id[run_id], level=3)
        below = [(child_id, f"{number}.{i}") for i, child_id in enumerate(tree.children(run[-1]), 1)]
        stack.extend(reversed(below))


def _run(tree: Tree, node_id: str) -> list[str]:
    """The chain from the node down to the next fork or leaf."""
    run = [node_id]
    while len(children := tree.children(run[-1])) == 1:
        run.append(children[0])
    return run


def _title(document: Document) -> str:
    return f"# {_one_line(document.conversation.title) or 'Untitled'}\n\n"


def _message(message: Message, level: int) -> str:
    node = message.node
    notes = [f"“{_one_line(label)}”" for label in message.labels] + (["★"] if node.bookmarked else [])
    notes += [node.status] if node.status != "complete" else []
    heading = " · ".join([NAMES[node.role], *notes])
    return f"{'#' * level} {heading}\n\n{message.text.strip()}\n\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())
