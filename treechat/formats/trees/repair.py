"""Repair the tree structure of imported messages: report duplicate ids, missing parents and cycles; keep the texts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from treechat.formats.document import ImportReport, Message


class Forest(NamedTuple):
    """A structure without cycles and missing parents.

    parents: parent by id, None for roots.
    ids: in depth-first order, parents before children.
    """

    parents: dict[str, str | None]
    ids: list[str]


def repair_messages(messages: Sequence[Message], report: ImportReport, place: str) -> list[Message]:
    """Return the messages in the order of `repair_forest`. Of several with the same id, the first is kept.

    messages: in the order of siblings; parents may come later.
    report: gets the repairs.
    place: file and place, for the report.
    """
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
    """Return a valid forest with siblings in the order of `parents`. Iterative, O(n).

    A node with a missing parent becomes a root, and so does one node of each cycle.

    parents: parent id by id, None for roots.
    report: gets the repairs.
    place: file and place, for the report.
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
    """Return one node of each cycle: the first one that is reached in the order of `parents`."""
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
