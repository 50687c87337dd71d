"""Mends the structure of what was read: duplicate ids, missing parents and cycles are reported, the texts are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from treechat.formats.document import ImportReport, Message
from treechat.tree import Tree


def arrange(messages: Sequence[Message], report: ImportReport, where: str) -> list[Message]:
    """The messages as a valid forest: parents before children, siblings in the order of `messages`.

    The first of several with one id stays. A missing parent, or the parent that closes a cycle, is given up: the
    message becomes a root. Iterative, O(n).
    """
    by_id: dict[str, Message] = {}
    for message in messages:
        if message.node.id in by_id:
            report.drop(where, f"node {message.node.id} comes twice; the first one stays")
        else:
            by_id[message.node.id] = message
    for message in list(by_id.values()):
        parent_id = message.node.parent_id
        if parent_id is not None and parent_id not in by_id:
            report.drop(where, f"the parent {parent_id} of node {message.node.id} is missing; it became a root")
            by_id[message.node.id] = _as_root(message)
    for node_id in _cycle_starts(by_id):
        report.drop(where, f"node {node_id} is its own ancestor; it became a root")
        by_id[node_id] = _as_root(by_id[node_id])
    tree = Tree([message.node for message in by_id.values()])
    return [by_id[node_id] for node_id in tree.walk(hidden=True)]


def _as_root(message: Message) -> Message:
    return replace(message, node=replace(message.node, parent_id=None))


def _cycle_starts(by_id: dict[str, Message]) -> list[str]:
    """One node of each cycle: the first of it that the messages' order meets."""
    done: set[str] = set()
    starts = []
    for node_id in by_id:
        trail: dict[str, None] = {}
        current: str | None = node_id
        while current is not None and current not in done and current not in trail:
            trail[current] = None
            current = by_id[current].node.parent_id
        if current is not None and current in trail:
            starts.append(current)
        done.update(trail)
    return starts
