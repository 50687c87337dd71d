"""Tree: structure, walks, hidden nodes, depth."""

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


def test_children_keep_their_order_and_hidden_ones_are_left_out():
    tree = forked()
    assert tree.children("a") == ["c", "d"]
    tree.change("c", hidden=True)
    assert tree.children("a") == ["d"]
    assert tree.children("a", hidden=True) == ["c", "d"]
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
