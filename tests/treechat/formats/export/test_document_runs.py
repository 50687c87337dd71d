"""Runs of a document: chains without a fork, numbered by the forks above them, at any depth."""

from treechat.formats.export.document_runs import MAX_NUMBER_CHARS, runs_of
from treechat.tree import Node, Tree


def comb(length: int) -> Tree:
    """Return a chain in which each node except the first has a leaf as sibling."""
    nodes = [Node("n0", None, "user")]
    for i in range(1, length):
        nodes += [Node(f"n{i}", f"n{i - 1}", "user"), Node(f"leaf{i}", f"n{i - 1}", "user")]
    return Tree(nodes)


def test_runs_are_parents_first_and_contain_each_node_once(document):
    runs = list(runs_of(document.tree))
    assert [run.node_ids for run in runs] == [["r1", "u1"], ["a1", "u2"], ["a2"], ["x1"]]
    assert [run.number for run in runs] == ["1", "1.1", "1.2", "2"]
    assert [(run.parent, run.depth) for run in runs] == [(None, 0), (0, 1), (0, 1), (None, 0)]


def test_ten_thousand_consecutive_forks_have_short_unique_numbers():
    runs = list(runs_of(comb(10_000)))
    numbers = [run.number for run in runs]
    assert len(set(numbers)) == len(numbers) == 19_999
    assert max(map(len, numbers)) <= MAX_NUMBER_CHARS
    assert max(run.depth for run in runs) == 9_999


def test_hidden_branches_are_in_no_run():
    tree = Tree([Node("a", None, "user"), Node("b", "a", "assistant", hidden=True), Node("c", "a", "assistant")])
    assert [run.node_ids for run in runs_of(tree)] == [["a", "c"]]
