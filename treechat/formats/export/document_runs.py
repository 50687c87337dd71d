"""The runs of a document: maximal chains of messages without a fork, numbered by the forks that lead to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from treechat.tree import Tree

MAX_NUMBER_CHARS = 40
"""A longer number begins again with the run's position in brackets: written out, thousands of forks in a row would
take more room than their texts."""


@dataclass(frozen=True, slots=True)
class NumberedRun:
    """index: position among all runs, from 0; parent: that of the run above, None at a root. depth: forks above.

    number: `1.2.1`, the second way at the first fork and then the first; unique in its document.
    """

    index: int
    parent: int | None
    depth: int
    number: str
    node_ids: list[str]


def runs_of(tree: Tree) -> Iterator[NumberedRun]:
    """All visible runs, the one above before those below, siblings in order. Iterative."""
    numbers: list[str] = []
    for run in tree.runs():
        number = str(run.place) if run.parent is None else f"{numbers[run.parent]}.{run.place}"
        if len(number) > MAX_NUMBER_CHARS:
            number = f"[{run.index + 1}]"
        numbers.append(number)
        yield NumberedRun(run.index, run.parent, run.depth, number, run.node_ids)
