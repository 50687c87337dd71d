"""Write OpenAI chat JSONL: `{"messages": [{"role", "content"}]}`, one line per path.

Paths that share a prefix repeat it, because the format is flat. An import merges them into one tree again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from treechat.formats.document import Document, Message
from treechat.tree import Tree


def write(document: Document, bookmarked: bool = False, weights: bool = False) -> Iterator[str]:
    """Yield one line per path.

    document: the conversation.
    bookmarked: paths end at the bookmarked nodes, not at the leaves.
    weights: add training weights. A complete reply has weight 1 in its first line and 0 in later ones, so that training
        uses a shared reply once; an incomplete reply has weight 0. Messages after the last reply, and lines without a
        weight of 1, are omitted.
    """
    by_id = {message.node.id: message for message in document.messages}
    tree = document.tree
    trained_ids: set[str] = set()

    def is_end(node_id: str) -> bool:
        return tree[node_id].bookmarked if bookmarked else not tree.children(node_id)

    for path in _paths(tree, is_end):
        messages = [by_id[node_id] for node_id in path]
        rows = _weighted_rows(messages, trained_ids) if weights else [_row(message) for message in messages]
        if rows:
            yield json.dumps({"messages": rows}, ensure_ascii=False) + "\n"


def _paths(tree: Tree, is_end: Callable[[str], bool]) -> Iterator[list[str]]:
    """Yield the path to each node for which `is_end` is true, in order. The yielded list changes at the next step."""
    path: list[str] = []
    stack = [(root_id, 0) for root_id in reversed(tree.roots)]
    while stack:
        node_id, depth = stack.pop()
        del path[depth:]
        path.append(node_id)
        if is_end(node_id):
            yield path
        stack.extend((child_id, depth + 1) for child_id in reversed(tree.children(node_id)))


def _row(message: Message) -> dict[str, Any]:
    return {"role": message.node.role, "content": message.text}


def _weighted_rows(messages: list[Message], trained_ids: set[str]) -> list[dict[str, Any]]:
    """Return the rows up to the last reply, none if no reply has weight 1. Adds the replies to `trained_ids`."""
    rows: list[dict[str, Any]] = []
    num_rows, has_weight = 0, False
    for message in messages:
        row = _row(message)
        rows.append(row)
        if message.node.role == "assistant":
            node = message.node
            is_new = node.status == "complete" and node.id not in trained_ids and bool(message.text)
            row["weight"] = int(is_new)
            has_weight |= is_new
            trained_ids.add(node.id)
            num_rows = len(rows)
    return rows[:num_rows] if has_weight else []
