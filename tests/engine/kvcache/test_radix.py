"""The tree of cached prefixes without a cache: against a dict of prefixes, and one rule per test."""

from __future__ import annotations

from array import array

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from treechat_engine.kvcache.eviction import fifo, lfu, lru
from treechat_engine.kvcache.radix import RadixTree
from treechat_engine.kvcache.radix_node import DEVICE, Ranking, common_len

PATHS = st.lists(st.integers(0, 2), max_size=10)


def evicted(tree: RadixTree, num_slots: int, ranking: Ranking = lru) -> list[int]:
    """Evict and return the freed device slots."""
    return tree.evict(num_slots, ranking)[DEVICE].tolist()


class TreeAgainstPrefixes(RuleBasedStateMachine):
    """The tree under random operations. The oracle maps each cached prefix, a tuple of ids, to its last slot."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = RadixTree()
        self.oracle: dict[tuple[int, ...], int] = {}
        self.next_slot = 0
        self.locked: list[tuple[object, list[int]]] = []

    def longest(self, ids: list[int]) -> int:
        return max((n for n in range(1, len(ids) + 1) if tuple(ids[:n]) in self.oracle), default=0)

    def new_slots(self, n: int) -> list[int]:
        self.next_slot += n
        return list(range(self.next_slot - n, self.next_slot))

    def expected_slots(self, ids: list[int]) -> list[int]:
        return [self.oracle[tuple(ids[: n + 1])] for n in range(len(ids))]

    @rule(ids=PATHS)
    def insert(self, ids: list[int]) -> None:
        slots, cached = self.new_slots(len(ids)), self.longest(ids)
        node, num_existing, _ = self.tree.insert(ids, slots)
        assert num_existing == cached
        for n in range(cached, len(ids)):
            self.oracle[tuple(ids[: n + 1])] = slots[n]
        assert self.tree.slots_of(node) == self.expected_slots(ids)

    @rule(head=PATHS, tail=PATHS)
    def insert_below_a_node(self, head: list[int], tail: list[int]) -> None:
        start = self.tree.match(head)
        ids = head[: start.len] + tail
        slots, cached = self.new_slots(len(tail)), self.longest(ids)
        node, num_existing, _ = self.tree.insert(tail, slots, start.node)
        assert start.len + num_existing == max(cached, start.len)
        for n in range(num_existing, len(tail)):
            self.oracle[tuple(ids[: start.len + n + 1])] = slots[n]
        assert self.tree.slots_of(node) == self.expected_slots(ids)

    @rule(ids=PATHS)
    def match(self, ids: list[int]) -> None:
        node, length, _ = self.tree.match(ids)
        assert length == self.longest(ids)
        assert self.tree.slots_of(node) == self.expected_slots(ids[:length])

    @rule(ids=PATHS)
    def peek(self, ids: list[int]) -> None:
        assert self.tree.peek(ids) == self.longest(ids)

    @rule(ids=PATHS)
    def lock(self, ids: list[int]) -> None:
        node, length, _ = self.tree.match(ids)
        self.tree.lock(node)
        self.locked.append((node, ids[:length]))

    @precondition(lambda self: self.locked)
    @rule(data=st.data())
    def unlock(self, data: st.DataObject) -> None:
        node, _ = self.locked.pop(data.draw(st.integers(0, len(self.locked) - 1)))
        self.tree.unlock(node)

    @rule(n=st.integers(1, 8), ranking=st.sampled_from([lru, lfu, fifo]))
    def evict(self, n: int, ranking: Ranking) -> None:
        evictable = self.tree.num_evictable
        freed = set(evicted(self.tree, n, ranking))
        assert len(freed) == min(n, evictable)
        assert freed <= set(self.oracle.values())
        self.oracle = {prefix: slot for prefix, slot in self.oracle.items() if slot not in freed}

    @invariant()
    def counts_and_locks_hold(self) -> None:
        self.tree.check()
        assert self.tree.num_tokens == len(self.oracle)
        assert all(prefix[:-1] in self.oracle or len(prefix) == 1 for prefix in self.oracle)
        kept = {tuple(ids[: n + 1]) for _, ids in self.locked for n in range(len(ids))}
        assert self.tree.num_evictable == len(self.oracle) - len(kept)
        for node, ids in self.locked:
            assert self.tree.slots_of(node) == self.expected_slots(ids)


TreeAgainstPrefixes.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestTreeAgainstPrefixes = TreeAgainstPrefixes.TestCase


def snapshot(tree: RadixTree) -> list[tuple[object, ...]]:
    return sorted(
        (n.serial, n.ids.tolist(), n.slots.tolist(), n.lock_count, n.last_access, n.hits, n.parent.serial)
        for n in tree.nodes()
    )


def test_a_split_gives_the_lower_half_the_old_identity() -> None:
    tree = RadixTree()
    node = tree.insert([1, 2, 3, 4], [10, 11, 12, 13]).node
    tree.lock(node)
    upper, length, _ = tree.match([1, 2, 9])
    assert (length, tree.slots_of(upper)) == (2, [10, 11])
    assert node.parent is upper and tree.slots_of(node) == [10, 11, 12, 13]
    assert upper.lock_count == 1
    tree.unlock(node)
    assert (upper.lock_count, node.lock_count, tree.num_evictable) == (0, 0, 4)
    tree.check()


def test_peek_changes_nothing_at_all() -> None:
    tree = RadixTree()
    tree.insert([1, 2, 3, 4], [0, 1, 2, 3])
    tree.insert([1, 2, 5], [4, 5, 6])
    before = snapshot(tree)
    assert [tree.peek(ids) for ids in ([1, 2, 3], [1, 2, 5, 6], [1], [7], [])] == [3, 3, 1, 0, 0]
    assert snapshot(tree) == before
    tree.match([1])
    assert snapshot(tree) != before


def test_a_locked_path_is_never_evicted() -> None:
    tree = RadixTree()
    node = tree.insert([1, 2, 3], [0, 1, 2]).node
    tree.lock(node)
    tree.insert([1, 2, 9, 9], [5, 6, 7, 8])
    assert sorted(evicted(tree, 100)) == [7, 8]
    assert tree.slots_of(node) == [0, 1, 2]
    tree.unlock(node)
    assert sorted(evicted(tree, 100)) == [0, 1, 2]
    assert tree.num_tokens == 0


def test_eviction_takes_the_least_recently_used_leaf_and_only_what_is_needed_of_it() -> None:
    tree = RadixTree()
    tree.insert([1, 1, 1], [0, 1, 2])
    tree.insert([2, 2, 2], [3, 4, 5])
    tree.match([1, 1, 1])
    assert evicted(tree, 2) == [4, 5]
    assert (tree.peek([2, 2, 2]), tree.peek([1, 1, 1])) == (1, 3)
    assert sorted(evicted(tree, 2)) == [2, 3]
    tree.check()


def test_a_trunk_is_evicted_after_its_last_branch_and_is_used_with_it() -> None:
    tree = RadixTree()
    trunk = tree.insert([1, 2], [0, 1]).node
    other = tree.insert([7, 7], [2, 3]).node
    tree.insert([3, 4], [4, 5], trunk)
    tree.lock(other)
    assert evicted(tree, 2) == [4, 5]
    tree.unlock(other)
    assert evicted(tree, 2) == [2, 3]
    assert evicted(tree, 2) == [0, 1]


def test_policies_order_by_use_by_count_and_by_age() -> None:
    def filled() -> RadixTree:
        tree = RadixTree()
        for first, matches in ((1, 2), (2, 1), (3, 0)):
            tree.insert([first], [first])
            for _ in range(matches):
                tree.match([first])
        tree.match([1])
        return tree

    orders = {policy: [evicted(filled(), 3, policy)] for policy in (lru, lfu, fifo)}
    assert orders == {lru: [[2, 3, 1]], lfu: [[3, 2, 1]], fifo: [[1, 2, 3]]}


def test_a_chain_of_ten_thousand_nodes_does_not_recurse() -> None:
    tree, node = RadixTree(), None
    for i in range(10_000):
        node = tree.insert([i % 7], [i], node).node
    ids = [i % 7 for i in range(10_000)]
    assert tree.match(ids) == (node, 10_000, [])
    assert tree.peek(ids) == 10_000
    tree.lock(node)
    assert tree.slots_of(node) == list(range(10_000))
    assert evicted(tree, 1) == []
    tree.unlock(node)
    tree.check()
    assert len(evicted(tree, 10_000)) == 10_000
    tree.check()


def test_an_edge_and_a_key_agree_up_to_their_first_difference() -> None:
    edge = array("q", range(300))
    for at in range(300):
        key = array("q", [5, *edge])
        key[1 + at] = -1
        assert common_len(edge, key, 1) == at
    long = array("q", range(10_000))
    for at in (0, 1, 4095, 4096, 4097, 8191, 8192, 9_999):
        key = long[:]
        key[at] = -1
        for size in (10_000, 12_000, at + 1):
            assert common_len(long, key[:size] + array("q", range(size - len(key))), 0) == at
        assert common_len(long, key[7:], 0, at=7) == (at - 7 if at >= 7 else len(key) - 7)
    assert common_len(edge, array("q", range(350)), 0) == 300
    assert common_len(edge, array("q", range(200)), 0) == 200


def test_lists_tuples_and_arrays_of_ids_are_the_same_path() -> None:
    tree = RadixTree()
    tree.insert(array("q", [1, 2, 3]), array("q", [7, 8, 9]))
    assert [tree.peek(p) for p in ([1, 2, 3], (1, 2, 3), array("q", [1, 2, 3]), array("i", [1, 2, 3]))] == [3] * 4
    assert tree.slots_of(tree.match([1, 2, 3]).node) == [7, 8, 9]


def test_a_given_array_is_not_copied_and_a_list_is() -> None:
    tree = RadixTree()
    ids, slots = array("q", [1, 2, 3, 4]), [6, 7, 8, 9]
    node = tree.insert(ids, slots).node
    assert node.ids is ids
    tree.match([1, 2])
    tree.evict(1, lru)
    assert slots == [6, 7, 8, 9]
    tree.check()
