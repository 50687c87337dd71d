"""Tree: structure, walks, hidden nodes, depth."""

from hypothesis import given
from hypothesis import strategies as st

from treechat.tree import Node, Tree


def chain(num_nodes: int) -> Tree:
    return Tree([Node(str(i), str(i - 1) if i else None, "user") for i in range(num_nodes)])


def forked() -> Tree:
    return Tree(
        [
            Node("r", None, "system"),
            Node("a", "r", "user"),
            Node("b", "r", "user"),
            Node("c", "a", "assistant"),
            Node("d", "a", "assistant"),
        ]
    )


def test_children_keep_their_order_without_hidden_ones():
    tree = forked()
    assert tree.children("a") == ["c", "d"]
    tree.change("c", hidden=True)
    assert tree.children("a") == ["d"]
    assert tree.children("a", hidden=True) == ["c", "d"]
    assert tree.num_visible == 4
    tree.change("a", hidden=True)
    assert tree.num_visible == 2
    assert tree.is_hidden("c")
    assert not tree.is_fork("a")


def test_paths_and_common_ancestors():
    tree = forked()
    assert tree.path("d") == ["r", "a", "d"]
    assert tree.path(None) == []
    assert tree.common_ancestor("c", "d") == "a"
    assert tree.common_ancestor("c", "b") == "r"
    assert tree.is_ancestor("r", "c")
    assert not tree.is_ancestor("b", "c")


def test_walks_give_parents_first_and_siblings_in_order():
    assert list(forked().walk()) == ["r", "a", "c", "d", "b"]
    assert forked().leaf("r") == "b"


def test_a_move_changes_the_children_and_the_version():
    tree = forked()
    version = tree.version
    tree.change("d", preview="text does not change the structure")
    assert tree.version == version
    tree.change("d", parent_id="b")
    assert tree.version > version
    assert tree.children("b") == ["d"]
    assert tree.children("a") == ["c"]


def test_a_chain_of_100_000_nodes_is_walked_without_recursion():
    tree = chain(100_000)
    assert len(tree.path("99999")) == 100_000
    assert sum(1 for _ in tree.walk()) == 100_000
    assert tree.leaf("0") == "99999"


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.sampled_from(("add", "move", "hide"))), max_size=40))
def test_walks_follow_every_change(steps) -> None:
    """Cached paths and only children agree with the parents and hidden marks after every change."""
    tree = Tree([Node("n0", None, "user")])
    for number, (at, hidden, step) in enumerate(steps, 1):
        node_id = f"n{at % len(tree)}"
        if step == "add":
            tree.add(Node(f"n{len(tree)}", node_id, "user", hidden=hidden))
        elif step == "hide":
            tree.change(node_id, hidden=hidden)
        elif not tree.is_ancestor(node_id, target := f"n{number % len(tree)}"):
            tree.change(node_id, parent_id=target)
        for node in tree.nodes.values():
            children = [child.id for child in tree.nodes.values() if child.parent_id == node.id and not child.hidden]
            assert sorted(tree.children(node.id)) == sorted(children)
            assert tree.only_child(node.id) == (children[0] if len(children) == 1 else None)
            assert tree.is_fork(node.id) == (len(children) > 1)
            above = [] if node.parent_id is None else tree.path(node.parent_id)
            assert tree.path(node.id) == [*above, node.id]
            tree.path(node.id).clear()


def test_runs_come_parents_first_and_hold_each_visible_node_once():
    tree = forked()
    assert [run.node_ids for run in tree.runs()] == [["r"], ["a"], ["c"], ["d"], ["b"]]
    assert [(run.index, run.parent, run.depth, run.place) for run in tree.runs()] == [
        (0, None, 0, 1), (1, 0, 1, 1), (2, 1, 2, 1), (3, 1, 2, 2), (4, 0, 1, 2),
    ]  # fmt: skip
    tree.change("d", hidden=True)
    assert [run.node_ids for run in tree.runs()] == [["r"], ["a", "c"], ["b"]]
    assert all(tree.run_of(node_id) == run.node_ids for run in tree.runs() for node_id in run.node_ids)


def test_a_run_of_a_hundred_thousand_nodes_and_as_many_forks_need_no_recursion():
    assert [len(run.node_ids) for run in chain(100_000).runs()] == [100_000]
    tree = chain(50_000)
    for i in range(49_999):
        tree.add(Node(f"leaf{i}", str(i), "user"))
    assert sum(1 for _ in tree.runs()) == 99_999
    assert tree.run_of("49998") == ["49998"]
