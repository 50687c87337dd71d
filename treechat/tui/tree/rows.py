"""Lay out the runs of a tree as rows of the tree pane. Pure and iterative; draws nothing.

A run is a maximal chain without a fork. At a fork, the branch with the current node comes first and is not indented.
Its siblings follow directly below it, one step indented, each with its subtree; then the first branch continues.
If no branch of the fork holds the current node, the newest branch comes first.

    ● plan the trip to Italy
    ● museums in Florence   ← here   2/3
    ├─◐ cheap trains                 1/3
    └─○ edit: start in Rome          3/3
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from treechat.tree import Tree

MAX_GUIDES = 64
"""Steps of indentation that a row keeps, innermost last. No gutter is wider."""

MIN_DEAD_ENDS = 8
"""A fork with at least this many single-node side branches shows them as one row."""


@dataclass(frozen=True, slots=True)
class TreeRow:
    """One row: a run, or the folded dead ends of a fork.

    head_id: first node of the run.
    tip_id: last node of the run.
    num_nodes: nodes of the run.
    depth: steps of indentation.
    guides: the lines drawn for the innermost `MAX_GUIDES` steps, two cells each.
    index: number of the head among its siblings, from 1.
    num_siblings: siblings of the head, itself included.
    num_below: folded nodes below the tip.
    dead_end_ids: for a row of dead ends, their heads; else empty.
    """

    head_id: str
    tip_id: str
    num_nodes: int
    depth: int
    guides: str
    index: int
    num_siblings: int
    num_below: int = 0
    dead_end_ids: tuple[str, ...] = ()


class _Item(NamedTuple):
    """A subtree still to lay out: the run at `head_id` with its descendants, or all children of `fork_id`."""

    fork_id: str | None
    head_id: str | None
    depth: int = 0
    guides: str = ""
    joint: str = ""
    place: int = 0
    total: int = 0


class RowLayout:
    """All rows of a tree at one version, and the row of each node."""

    def __init__(
        self,
        tree: Tree,
        current_id: str | None,
        *,
        folded_ids: Collection[str] = (),
        expanded_ids: Collection[str | None] = (),
        hoisted_id: str | None = None,
    ) -> None:
        """Lay the rows out.

        tree: the tree; its current version.
        current_id: its branch comes first and is not indented.
        folded_ids: heads of runs whose rows below are hidden.
        expanded_ids: forks whose dead ends have a row each.
        hoisted_id: show only this node and its descendants; None: the whole tree.
        """
        self.rows: list[TreeRow] = []
        self._row_of: dict[str, int] = {}
        self._tree = tree
        self._active = frozenset(tree.path(current_id)) if current_id in tree else frozenset()
        self._folded_ids = folded_ids
        self._expanded_ids = expanded_ids
        self._lay(hoisted_id if hoisted_id in tree else None)

    def row_of(self, node_id: str | None) -> int | None:
        """Return the index of the row of the node, or of its nearest ancestor that has a row."""
        while node_id is not None:
            if (index := self._row_of.get(node_id)) is not None:
                return index
            node_id = self._tree[node_id].parent_id if node_id in self._tree else None
        return None

    def nodes_of(self, row: TreeRow) -> list[str]:
        """Return the ids of the row's nodes, in order."""
        if row.dead_end_ids:
            return list(row.dead_end_ids)
        ids = [row.tip_id]
        while ids[-1] != row.head_id:
            parent_id = self._tree[ids[-1]].parent_id
            assert parent_id is not None, f"{row.head_id} is not above {row.tip_id}"
            ids.append(parent_id)
        return ids[::-1]

    def only(self, rows: list[TreeRow]) -> None:
        """Replace the rows."""
        self.rows = rows
        self._row_of = {node_id: number for number, row in enumerate(rows) for node_id in self.nodes_of(row)}

    def _lay(self, root_id: str | None) -> None:
        if root_id is None:
            stack = [_Item(None, None)]
        else:
            stack = [_Item(None, root_id, place=self._place(root_id), total=len(self._tree.siblings(root_id)))]
        while stack:
            item = stack.pop()
            fork_id, guides = item.fork_id, item.guides
            if item.head_id is not None:
                fork_id, is_open = self._add(item.head_id, item)
                guides += {"├─": "│ ", "└─": "  ", "": ""}[item.joint]
                if not is_open:
                    continue
            stack.extend(reversed(self._below(fork_id, item.depth, guides[-2 * MAX_GUIDES :])))

    def _below(self, fork_id: str | None, depth: int, guides: str) -> list[_Item]:
        """Add the first branch of a fork. Return the items that follow: its siblings, then its own continuation."""
        children = self._tree.children(fork_id)
        if not children:
            return []
        total = len(children)
        first = next((i for i, child in enumerate(children) if child in self._active), total - 1)
        tip_id, is_open = self._add(children[first], _Item(fork_id, None, depth, guides, "", first + 1, total))
        sides = [i for i in range(total) if i != first]
        dead = [i for i in sides if not self._tree.children(children[i])]
        if len(dead) >= MIN_DEAD_ENDS and fork_id not in self._expanded_ids:
            gone = set(dead)
            sides = [i for i in sides if i not in gone]
            self._add_dead([children[i] for i in dead], depth + 1, guides + ("├─" if sides else "└─"), total)
        items = [
            _Item(None, children[i], depth + 1, guides, "└─" if i == sides[-1] else "├─", i + 1, total) for i in sides
        ]
        if is_open:
            items.append(_Item(tip_id, None, depth, guides))
        return items

    def _add(self, head_id: str, item: _Item) -> tuple[str, bool]:
        """Add the row of the run at `head_id`. Return its tip, and whether the rows below it are visible."""
        tree = self._tree
        node_ids = tree.chain(head_id)
        tip_id, num_nodes = node_ids[-1], len(node_ids)
        self._row_of.update(dict.fromkeys(node_ids, len(self.rows)))
        is_folded = head_id in self._folded_ids and bool(tree.children(tip_id))
        num_below = sum(1 for _ in tree.subtree(tip_id)) - 1 if is_folded else 0
        guides = (item.guides + item.joint)[-2 * MAX_GUIDES :]
        self.rows.append(TreeRow(head_id, tip_id, num_nodes, item.depth, guides, item.place, item.total, num_below))
        return tip_id, not is_folded

    def _add_dead(self, head_ids: list[str], depth: int, guides: str, total: int) -> None:
        for head_id in head_ids:
            self._row_of[head_id] = len(self.rows)
        row = TreeRow(head_ids[0], head_ids[-1], len(head_ids), depth, guides, 0, total, dead_end_ids=tuple(head_ids))
        self.rows.append(row)

    def _place(self, node_id: str) -> int:
        siblings = self._tree.siblings(node_id)
        return siblings.index(node_id) + 1 if node_id in siblings else 1


def gutter(row: TreeRow, width: int) -> str:
    """Return the guides before the mark, in at most a third of `width` cells. A leading `…` replaces the rest."""
    room = max(width // 3 // 2, 1)
    if row.depth <= room:
        return row.guides
    return "…" + row.guides[-2 * room :][1:]
