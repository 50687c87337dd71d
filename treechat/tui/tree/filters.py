"""Filters over the rows of the tree pane, and the breadcrumb above them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Literal, get_args

from rich.cells import cell_len

from treechat.tree import Tree
from treechat.tui.safe_text import fit, one_line, without_markdown
from treechat.tui.tree.rows import RowLayout, TreeRow

Filter = Literal["everything", "forks only", "my turns", "bookmarked", "warm"]
FILTERS: tuple[Filter, ...] = get_args(Filter)

CRUMB_LEN = 24
"""Cells of the longest step of the breadcrumb."""


def apply_filter(
    layout: RowLayout, tree: Tree, chosen: Filter, current_id: str | None, warm_ids: Collection[str]
) -> None:
    """Remove the rows that the filter excludes from the layout, and the indentation. The current node's row stays.

    layout: changed in place.
    chosen: "my turns" makes one row per user message; the other filters keep whole runs.
    warm_ids: last nodes of the runs whose KV is at least partly resident.
    """
    here = layout.row_of(current_id)
    rows = layout.rows
    if chosen == "my turns":
        layout.only([_alone(tree, i) for row in rows for i in layout.nodes_of(row) if tree[i].role == "user"])
        return

    def is_kept(row: TreeRow) -> bool:
        if chosen == "forks only":
            return len(tree.children(row.tip_id)) > 1
        if chosen == "bookmarked":
            return any(tree[i].bookmarked or tree[i].label for i in layout.nodes_of(row))
        return row.tip_id in warm_ids

    layout.only([_flat(row) for i, row in enumerate(rows) if i == here or (not row.dead_end_ids and is_kept(row))])


def _flat(row: TreeRow) -> TreeRow:
    return replace(row, depth=0, guides="")


def _alone(tree: Tree, node_id: str) -> TreeRow:
    siblings = tree.siblings(node_id)
    place = siblings.index(node_id) + 1 if node_id in siblings else 1
    return TreeRow(node_id, node_id, 1, 0, "", place, len(siblings))


def breadcrumb(tree: Tree, node_id: str, width: int) -> str:
    """Return the names of the branches above a node, nearest last, in `width` cells. `…` replaces the rest."""
    text = ""
    current: str | None = node_id
    while current is not None and cell_len(text) <= width:
        node = tree[current]
        if node.parent_id is None or tree.is_fork(node.parent_id):
            name = (one_line(node.label) if node.label else without_markdown(node.preview)) or node.role
            name = name if cell_len(name) <= CRUMB_LEN else fit(name, CRUMB_LEN)
            text = f"{name} › {text}" if text else name
        current = node.parent_id
    if current is None and cell_len(text) <= width:
        return text
    # The nearest steps matter most, so cut at the front.
    while text and cell_len(text) > width - 2:
        text = text[1:]
    return f"… {text}"
