"""Eviction policies: the order in which cached leaves are evicted. Pure Python.

A policy makes a ranking for the present state of the tree. The lowest rank is evicted first. `lru`, `lfu` and `fifo`
rank a node by itself. `TreePolicy` uses how a person moves in a tree, as far as the app reports it (`protect`).

Share of all prompt tokens that were computed again, over six days of four people's work in a tree (`python -m
tests.bench.eviction --seeds 4`; the weights were chosen on other seeds; the result does not depend on the machine):

| slots | 10,000 | 14,000 | 20,000 | 28,000 | 40,000 | 64,000 |
| --- | --- | --- | --- | --- | --- | --- |
| tree | 3.6 % | 2.5 % | 1.5 % | 0.9 % | 0.5 % | 0.2 % |
| lfu | 3.8 % | 2.8 % | 2.1 % | 1.4 % | 0.8 % | 0.3 % |
| lru, fifo | 4.5 % | 3.4 % | 2.3 % | 1.7 % | 1.0 % | 0.3 % |
| optimal, which uses the future | 2.0 % | 0.8 % | 0.2 % | 0.0 % | 0.0 % | 0.0 % |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from treechat_engine.api import EngineError
from treechat_engine.kvcache.radix import RadixTree
from treechat_engine.kvcache.radix_node import Ints, RadixNode, Rank, Ranking, as_ints


def lru(node: RadixNode) -> Rank:
    """Evict the least recently used first."""
    return (node.last_access,)


def lfu(node: RadixNode) -> Rank:
    """Evict the least often matched first, then the least recently used."""
    return (node.hits, node.last_access)


def fifo(node: RadixNode) -> Rank:
    """Evict the oldest first."""
    return (node.created,)


class Policy(Protocol):
    """The interface of an eviction policy."""

    def protect(self, paths: Sequence[Sequence[int]]) -> None:
        """Set the paths to evict last, the current one first. A bias, not a lock."""

    def ranking(self, tree: RadixTree) -> Ranking:
        """Return a ranking for the present state of the tree. Do not use it after another match or insert."""

    def rank_warm(self, tree: RadixTree, ids: Ints) -> Rank:
        """Return the rank of a path that is computed ahead of need. It may evict KV of lower ranks."""


# KV that is computed ahead of need may never be used, so its last use counts as this many matches and inserts ago.
WARM_AGE = 64


def ghost(tree: RadixTree, parent: RadixNode, ids: Ints) -> RadixNode:
    """Return a node for the path `ids` below `parent` that is not in the tree, to rank KV computed ahead of need."""
    now = max(0, tree.now - WARM_AGE)
    return RadixNode(parent, ids, ids, 0, now, parent.tier)


class NodePolicy:
    """A policy that ranks each node by itself and has no protected paths."""

    def __init__(self, ranking: Ranking) -> None:
        self._ranking = ranking

    def protect(self, paths: Sequence[Sequence[int]]) -> None:
        """Do nothing."""

    def ranking(self, tree: RadixTree) -> Ranking:
        return self._ranking

    def rank_warm(self, tree: RadixTree, ids: Ints) -> Rank:
        return self._ranking(ghost(tree, tree.node_at(ids), ids))


# The weights are in units of ln(age): with 4.0, a node's last use counts as e^4 = 55 times as recent. Chosen on the
# traces of `tests/bench/eviction.py`, with other seeds than those of its table.
PROTECTED_WEIGHT, FORK_WEIGHT, NEAR_WEIGHT, OFTEN_WEIGHT = 4.0, 0.7, 1.0, 0.7
# For a model of the default size, attention over a path of this many tokens costs as much as the linear layers.
LONG_PATH_LEN = 8192


class TreePolicy:
    """Evict the KV that is least worth keeping: chance of reuse times recompute cost per slot, as a sum of logarithms.

    The chance of reuse falls with age as 1 / age. The last use counts as more recent for protected paths, forks (nodes
    that have, or had, two children), branches that share much with the current path, and nodes used often. Recomputing
    a deeper token costs more.
    """

    def __init__(self) -> None:
        self._paths: list[Ints] = []

    def protect(self, paths: Sequence[Sequence[int]]) -> None:
        self._paths = [as_ints(path) for path in paths]

    def ranking(self, tree: RadixTree) -> Ranking:
        protected: set[RadixNode] = set()
        for path in self._paths:
            node: RadixNode | None = tree.node_at(path)
            while node is not None and node not in protected:
                protected.add(node)
                node = node.parent
        cursor = tree.path(tree.node_at(self._paths[0])) if self._paths else []
        depths = {tree.root: 0}
        # For each node, the number of tokens that its path shares with the current path.
        shared = {tree.root: 0}
        length = 0
        for node in cursor:
            length += len(node.ids)
            shared[node] = depths[node] = length
        now = tree.now + 1

        def look_up(node: RadixNode) -> None:
            """Add `node` and its unknown ancestors."""
            above: list[RadixNode] = []
            current = node
            while current not in depths:
                above.append(current)
                assert current.parent is not None, f"{current!r} has no parent"
                current = current.parent
            for each in reversed(above):
                assert each.parent is not None, f"{each!r} has no parent"
                depths[each] = depths[each.parent] + len(each.ids)
                shared[each] = shared[each.parent]

        def rank(node: RadixNode) -> Rank:
            if node not in depths:
                look_up(node)
            score = math.log1p(depths[node] / LONG_PATH_LEN) - math.log(now - node.last_access)
            score += OFTEN_WEIGHT * math.log1p(node.hits)
            if node in protected:
                score += PROTECTED_WEIGHT
            if node.is_fork:
                score += FORK_WEIGHT
            if length:
                score += NEAR_WEIGHT * shared[node] / length
            return (score,)

        return rank

    def rank_warm(self, tree: RadixTree, ids: Ints) -> Rank:
        (score,) = self.ranking(tree)(ghost(tree, tree.node_at(ids), ids))
        is_protected = any(len(path) >= len(ids) and path[: len(ids)] == ids for path in self._paths)
        return (score + PROTECTED_WEIGHT * is_protected,)


POLICIES: dict[str, Callable[[], Policy]] = {
    "tree": TreePolicy,
    "lru": lambda: NodePolicy(lru),
    "lfu": lambda: NodePolicy(lfu),
    "fifo": lambda: NodePolicy(fifo),
}


def make_policy(policy: str | Ranking | Policy) -> Policy:
    """Return a policy by its name, or for a function that ranks one node. Raises EngineError for an unknown name."""
    if isinstance(policy, str):
        if policy not in POLICIES:
            raise EngineError(f"eviction {policy!r} is unknown", f"Choose one of {', '.join(POLICIES)}")
        return POLICIES[policy]()
    return NodePolicy(policy) if callable(policy) else policy
