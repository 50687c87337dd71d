"""The runs of a document (maximal chains of messages without a fork), numbered by the forks above them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from treechat.tree import Tree

MAX_NUMBER_CHARS = 40
"""Limit on a number. A longer one restarts with the run's position in brackets, because the numbers of thousands of
consecutive forks would be larger than the texts."""


@dataclass(frozen=True, slots=True)
class NumberedRun:
    """A run with its number.

    index: position among all runs, from 0.
    parent: index of the parent run, None at a root.
    depth: number of forks above.
    number: such as `1.2.1`, the second branch at the first fork and then the first; unique in its document.
    node_ids: its nodes, the first one first.
    """

    index: int
    parent: int | None
    depth: int
    number: str
    node_ids: list[str]


def runs_of(tree: Tree) -> Iterator[NumberedRun]:
    """Yield all runs, parents first, siblings in order. Iterative."""
    numbers: list[str] = []
    for run in tree.runs():
        number = str(run.place) if run.parent is None else f"{numbers[run.parent]}.{run.place}"
        if len(number) > MAX_NUMBER_CHARS:
            number = f"[{run.index + 1}]"
        numbers.append(number)
        yield NumberedRun(run.index, run.parent, run.depth, number, run.node_ids)
