"""Order siblings: as the source lists them, else by time, else by their order in the file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from treechat.formats.document import ImportReport
from treechat.formats.trees.repair import repair_forest


def order_siblings(
    parents: Mapping[str, str | None],
    listed_children: Mapping[str, Sequence[object]],
    times: Mapping[str, float | None],
) -> list[str]:
    """Return the ids of `parents`, sorted so that siblings are in order.

    parents: parent by id, None for roots.
    listed_children: children by parent, as the source lists them; may be incomplete or wrong.
    times: seconds since the epoch by id, None if unknown.
    """
    ranks: dict[str, int] = {}
    for parent_id, children in listed_children.items():
        for rank, child in enumerate(children):
            if isinstance(child, str) and parents.get(child) == parent_id:
                ranks.setdefault(child, rank)

    def key(node_id: str) -> tuple[bool, int, float]:
        time = times.get(node_id)
        # Nodes that are not listed come after those that are.
        return node_id not in ranks, ranks.get(node_id, 0), float("inf") if time is None else time

    return sorted(parents, key=key)


def fill_parents(
    parents: Mapping[str, str | None], listed_children: Mapping[str, Sequence[object]]
) -> dict[str, str | None]:
    """Return `parents`; a node without a parent gets the first node that lists it as a child."""
    listing_parents: dict[str, str] = {}
    for parent_id, children in listed_children.items():
        for child in children:
            if isinstance(child, str) and child != parent_id:
                listing_parents.setdefault(child, parent_id)
    return {node_id: listing_parents.get(node_id) if parent is None else parent for node_id, parent in parents.items()}


class OrderedForest(NamedTuple):
    """A structure without cycles and missing parents.

    children: ids by parent, in order, roots under None.
    parents: parent by id, None for roots.
    """

    children: dict[str | None, list[str]]
    parents: dict[str, str | None]


def ordered_forest(
    parents: Mapping[str, str | None],
    listed_children: Mapping[str, Sequence[object]],
    times: Mapping[str, float | None],
    report: ImportReport,
    place: str,
) -> OrderedForest:
    """Return the repaired and ordered structure of messages.

    parents: parent by id, None for roots.
    listed_children: children by parent, as the source lists them; may be incomplete or wrong.
    times: seconds since the epoch by id, None if unknown.
    report: gets the repairs.
    place: file and place, for the report.
    """
    filled_parents = fill_parents(parents, listed_children)
    forest = repair_forest(
        {node_id: filled_parents[node_id] for node_id in order_siblings(filled_parents, listed_children, times)},
        report,
        place,
    )
    children: defaultdict[str | None, list[str]] = defaultdict(list)
    for node_id in forest.ids:
        children[forest.parents[node_id]].append(node_id)
    return OrderedForest(children, forest.parents)
