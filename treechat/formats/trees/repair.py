"""Mends the structure of what was read: duplicate ids, missing parents and cycles are reported, the texts are kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from treechat.formats.document import ImportReport, Message


class Forest(NamedTuple):
    """Parents by id, and the ids in order: parents before children, each with all that is below it."""

    parents: dict[str, str | None]
    ids: list[str]


def repair_messages(messages: Sequence[Message], report: ImportReport, place: str) -> list[Message]:
    """The messages as `mend` orders them. The first of several with one id stays."""
    by_id: dict[str, Message] = {}
    for message in messages:
        if message.node.id in by_id:
            report.drop(place, f"node {message.node.id} occurs twice; the first one is kept")
        else:
            by_id[message.node.id] = message
    forest = repair_forest({node_id: message.node.parent_id for node_id, message in by_id.items()}, report, place)
    repaired = []
    for node_id in forest.ids:
        message = by_id[node_id]
        if message.node.parent_id != forest.parents[node_id]:
            message = replace(message, node=replace(message.node, parent_id=None))
        repaired.append(message)
    return repaired


def repair_forest(parents: Mapping[str, str | None], report: ImportReport, place: str) -> Forest:
    """A valid forest: siblings in the order of `parents`, which gives each id its parent's.

    A missing parent, or the parent that closes a cycle, is given up: the node becomes a root. Iterative, O(n).
    """
    repaired = dict(parents)
    for node_id, parent_id in parents.items():
        if parent_id is not None and parent_id not in parents:
            report.drop(place, f"the parent {parent_id} of node {node_id} is missing; it became a root")
            repaired[node_id] = None
    for node_id in _cycle_starts(repaired):
        report.drop(place, f"node {node_id} is its own ancestor; it became a root")
        repaired[node_id] = None
    children: defaultdict[str | None, list[str]] = defaultdict(list)
    for node_id, parent_id in repaired.items():
        children[parent_id].append(node_id)
    ids = []
    stack = children.pop(None, [])[::-1]
    while stack:
        ids.append(node_id := stack.pop())
        stack.extend(reversed(children.pop(node_id, ())))
    return Forest(repaired, ids)


def _cycle_starts(parents: Mapping[str, str | None]) -> list[str]:
    """One node of each cycle: the first of it that the order meets."""
    done: set[str] = set()
    starts = []
    for node_id in parents:
        trail: dict[str, None] = {}
        current: str | None = node_id
        while current is not None and current not in done and current not in trail:
            trail[current] = None
            current = parents[current]
        if current is not None and current in trail:
            starts.append(current)
        done.update(trail)
    return starts
