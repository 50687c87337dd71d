"""The runs of a document: maximal chains of messages without a fork, numbered by the forks that lead to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from treechat.tree import Tree

MAX_NUMBER_CHARS = 40
"""A longer number begins again with the run's position in brackets: written out, thousands of forks in a row would
take more room than their texts."""


@dataclass(frozen=True, slots=True)
class Run:
    """index: position among all runs, from 0; parent: that of the run above, None at a root. depth: forks above.

    number: `1.2.1`, the second way at the first fork and then the first; unique in its document.
    """

    index: int
    parent: int | None
    depth: int
    number: str
    node_ids: list[str]


def runs_of(tree: Tree) -> Iterator[Run]:
    """All visible runs, the one above before those below, siblings in order. Iterative."""
    stack: list[tuple[str, int | None, int, str]] = [
        (root_id, None, 0, str(i)) for i, root_id in reversed(list(enumerate(tree.roots, 1)))
    ]
    index = 0
    while stack:
        node_id, parent, depth, number = stack.pop()
        node_ids = [node_id]
        while len(below := tree.children(node_ids[-1])) == 1:
            node_ids.append(below[0])
        if len(number) > MAX_NUMBER_CHARS:
            number = f"[{index + 1}]"
        yield Run(index, parent, depth, number, node_ids)
        stack.extend(
            (child_id, index, depth + 1, f"{number}.{i}") for i, child_id in reversed(list(enumerate(below, 1)))
        )
        index += 1
