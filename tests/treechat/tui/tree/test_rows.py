"""The rows of the tree pane."""

from __future__ import annotations

import time

import pytest

from treechat.tree import Node, Tree
from treechat.tui.tree.rows import MIN_DEAD_ENDS, RowLayout, gutter


def build(edges: dict[str, str | None]) -> Tree:
    return Tree([Node(node_id, parent_id, "user") for node_id, parent_id in edges.items()])


@pytest.fixture
def trip() -> Tree:
    return build({"a": None, "b": "a", "train": "b", "museum": "b", "uffizi": "museum", "rome": "b"})


def shape(layout: RowLayout) -> list[str]:
    return [f"{row.guides}{row.head_id}" for row in layout.rows]


def test_a_chain_is_one_row() -> None:
    layout = RowLayout(build({"a": None, "b": "a", "c": "b"}), "b")
    assert [(row.head_id, row.tip_id, row.num_nodes) for row in layout.rows] == [("a", "c", 3)]
    assert layout.row_of("b") == 0


def test_the_branch_with_the_current_node_comes_first_and_is_not_indented(trip: Tree) -> None:
    assert shape(RowLayout(trip, "museum")) == ["a", "museum", "├─train", "└─rome"]
    assert shape(RowLayout(trip, "train")) == ["a", "train", "├─museum", "└─rome"]


def test_rows_say_which_sibling_of_how_many_they_are(trip: Tree) -> None:
    layout = RowLayout(trip, "museum")
    assert [(row.index, row.num_siblings) for row in layout.rows] == [(1, 1), (2, 3), (1, 3), (3, 3)]


def test_a_side_branch_is_indented_one_step_per_fork_and_keeps_its_guides() -> None:
    tree = build({"r": None, "x": "r", "y": "r", "x1": "x", "x2": "x", "x2a": "x2", "x2b": "x2", "y1": "y", "y2": "y"})
    assert shape(RowLayout(tree, "y1")) == ["r", "y", "└─x", "  x2", "  └─x1", "  x2b", "  └─x2a", "y1", "└─y2"]


def test_several_roots_are_siblings() -> None:
    assert shape(RowLayout(build({"a": None, "b": None, "c": None}), "b")) == ["b", "├─a", "└─c"]


def test_a_folded_run_hides_what_is_below_and_counts_it(trip: Tree) -> None:
    layout = RowLayout(trip, "museum", folded_ids={"a"})
    assert shape(layout) == ["a"]
    assert layout.rows[0].num_below == 4
    assert layout.row_of("uffizi") == 0


def test_a_hoisted_node_is_the_root_of_the_view(trip: Tree) -> None:
    assert shape(RowLayout(trip, "train", hoisted_id="museum")) == ["museum"]


def test_hidden_nodes_have_no_row(trip: Tree) -> None:
    trip.change("rome", hidden=True)
    assert shape(RowLayout(trip, "museum")) == ["a", "museum", "└─train"]


def test_many_single_node_branches_become_one_row_until_opened() -> None:
    edges: dict[str, str | None] = {"a": None} | {f"b{i}": "a" for i in range(MIN_DEAD_ENDS + 2)}
    tree = build(edges)
    closed = RowLayout(tree, "b1")
    assert [len(row.dead_end_ids) for row in closed.rows] == [0, 0, MIN_DEAD_ENDS + 1]
    assert closed.row_of("b5") == 2
    assert len(RowLayout(tree, "b1", expanded_ids={"a"}).rows) == MIN_DEAD_ENDS + 3


def test_no_nodes_no_rows() -> None:
    assert RowLayout(Tree(), None).rows == []


def test_the_gutter_takes_at_most_a_third_of_the_width() -> None:
    edges: dict[str, str | None] = {"n0": None}
    for i in range(200):
        edges[f"side{i}"] = f"n{i}"
        edges[f"n{i + 1}"] = f"n{i}"
        edges[f"m{i + 1}"] = f"side{i}"
    # The worst case for depth: the current node is outside, and always the older child has the next fork.
    chain: dict[str, str | None] = {"r": None, "c0": "r", "now": "r"}
    for i in range(200):
        chain |= {f"c{i + 1}": f"c{i}", f"d{i + 1}": f"c{i}"}
    layout = RowLayout(build(chain), "now")
    assert max(row.depth for row in layout.rows) > 100
    for width in (24, 60, 200):
        assert all(len(gutter(row, width)) <= width // 3 for row in layout.rows)
    assert gutter(layout.rows[100], 60).startswith("…")


def test_a_hundred_thousand_nodes_are_laid_out_without_recursion() -> None:
    tree = Tree([Node("0", None, "user")])
    for i in range(1, 50_000):
        tree.add(Node(str(i), str(i - 1), "user"))
    for i in range(50_000, 100_000):
        tree.add(Node(str(i), str(i % 50_000), "user"))
    start = time.perf_counter()
    layout = RowLayout(tree, "49999")
    assert len(layout.rows) > 90_000
    assert time.perf_counter() - start < 10
    assert tree.run_of("60000") == ["60000"]
