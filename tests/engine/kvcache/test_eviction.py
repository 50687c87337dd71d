"""Eviction policies: the order of eviction, and protection, which is a bias and not a lock."""

from __future__ import annotations

import pytest

from tests.bench.eviction import Person, optimal_share, reused_share
from treechat_engine import EngineError
from treechat_engine.kvcache.eviction import POLICIES, Policy, make_policy
from treechat_engine.kvcache.radix import RadixTree
from treechat_engine.kvcache.radix_node import DEVICE


def evict(tree: RadixTree, policy: Policy, num_slots: int) -> list[int]:
    return tree.evict(num_slots, policy.ranking(tree))[DEVICE].tolist()


def two_branches() -> RadixTree:
    """Return a tree: slots 0, 1 are a trunk; 2, 3 its older branch; 4, 5 its newer one; 6, 7 the newest other path."""
    tree = RadixTree()
    trunk = tree.insert([1, 2], [0, 1]).node
    tree.insert([3, 4], [2, 3], trunk)
    tree.insert([5, 6], [4, 5], trunk)
    tree.insert([7, 8], [6, 7])
    return tree


def test_without_other_criteria_the_tree_policy_evicts_the_least_recently_used_leaf() -> None:
    assert evict(two_branches(), make_policy("tree"), 2) == [2, 3]


def test_a_protected_path_is_evicted_last_but_not_never() -> None:
    tree, policy = two_branches(), make_policy("tree")
    policy.protect([[1, 2, 3, 4]])
    assert evict(tree, policy, 4) == [4, 5, 6, 7]
    assert sorted(evict(tree, policy, 4)) == [0, 1, 2, 3]
    tree.check()


def test_protection_covers_the_cached_part_of_a_path_and_does_not_change_recency() -> None:
    tree, policy = two_branches(), make_policy("tree")
    before = {node.serial: node.last_access for node in tree.nodes()}
    policy.protect([[1, 2, 3, 4, 9, 9]])
    policy.ranking(tree)
    assert before == {node.serial: node.last_access for node in tree.nodes()}
    assert evict(tree, policy, 2) == [4, 5]


def test_a_fork_outlives_a_newer_path_after_its_branches_are_gone() -> None:
    tree, policy = RadixTree(), make_policy("tree")
    trunk = tree.insert([1, 2], [0, 1]).node
    tree.insert([3], [2], trunk)
    tree.insert([4], [3], trunk)
    for i in range(8):
        tree.insert([10 + i], [10 + i])
    assert evict(tree, policy, 2) == [2, 3]
    assert trunk.is_fork and not trunk.children
    assert evict(tree, policy, 1) == [10]


def test_of_two_equally_old_branches_the_one_nearer_to_the_cursor_stays() -> None:
    tree, policy = RadixTree(), make_policy("tree")
    near = tree.insert([1, 2, 3, 4], [0, 1, 2, 3]).node
    tree.insert([5], [4], near)
    tree.insert([6], [5], near)
    far = tree.insert([9, 2, 3, 4], [6, 7, 8, 9]).node
    tree.insert([5], [10], far)
    tree.insert([6], [11], far)
    for node in tree.nodes():
        node.last_access = node.hits = 1
    policy.protect([[1, 2, 3, 4]])
    assert sorted(evict(tree, policy, 2)) == [10, 11]


def test_every_policy_frees_the_requested_number_of_slots() -> None:
    for name in POLICIES:
        tree, policy = two_branches(), make_policy(name)
        policy.protect([[1, 2, 3, 4], [7, 8]])
        assert sorted(evict(tree, policy, 100)) == list(range(8))


def test_a_policy_of_another_name_is_refused() -> None:
    with pytest.raises(EngineError, match="mru"):
        make_policy("mru")


def test_over_days_in_a_tree_the_tree_policy_reuses_the_most_below_the_optimum() -> None:
    people = [Person(seed, 3) for seed in range(10, 13)]
    shares = {name: sum(reused_share(person, 12_000, name) for person in people) for name in POLICIES}
    assert max(shares, key=shares.__getitem__) == "tree"
    assert shares["tree"] < sum(optimal_share(person, 12_000) for person in people)
