"""Measure the tree of cached prefixes: the operations that SGLang's trees were measured on, and a pane's residency.

    python -m tests.bench.radix

Median times in microseconds; ids are `array('q')`. The pane has 1,000 rows: a trunk of 2,000 tokens and 250 branches
with 4 turns each, 100 tokens per turn. `one walk` is how the app does it; `each by itself` looks up every path.
"""

from __future__ import annotations

import platform
import random
import statistics
import time
from array import array
from collections.abc import Callable
from typing import TypeVar

import torch

from treechat_engine.kvcache.cache import KVCache
from treechat_engine.kvcache.eviction import lru
from treechat_engine.kvcache.radix import RadixTree
from treechat_engine.kvcache.radix_node import DEVICE
from treechat_engine.kvcache.slots import SlotPool

T = TypeVar("T")

TRUNK, TURN, NUM_BRANCHES, NUM_TURNS = 2_000, 100, 250, 4


LONG = array("q", (random.Random(0).randrange(49_000) for _ in range(100_000)))
SLOTS = array("q", range(100_000))


def median_us(make: Callable[[], T], work: Callable[[T], object], repeats: int = 21, unmeasured: int = 0) -> float:
    """Return the median time of `work` in microseconds.

    make: makes the argument of each call of `work`.
    work: the call to measure.
    repeats: how many calls are measured.
    unmeasured: how many calls run before them.
    """
    times = []
    for _ in range(unmeasured + repeats):
        tree = make()
        start = time.perf_counter()
        work(tree)
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times[unmeasured:])


def tree_of(num_nodes: int) -> RadixTree:
    """Return a tree with the long path in a chain of `num_nodes` nodes."""
    tree, node, size = RadixTree(), None, len(LONG) // max(1, num_nodes)
    for start in range(0, size * num_nodes, size):
        node = tree.insert(LONG[start : start + size], SLOTS[start : start + size], node).node
    return tree


def branched_tree() -> RadixTree:
    """Return a tree of a 2,000-token trunk and 1,000 branches of 100 tokens, each used twice."""
    chance, tree = random.Random(1), RadixTree()
    for i in range(1_000):
        ids = LONG[:2_000] + array("q", (chance.randrange(49_000) for _ in range(100)))
        tree.insert(ids, SLOTS[:2_000] + array("q", range(2_000 + 100 * i, 2_100 + 100 * i)))
        tree.match(ids)
    return tree


def tree_times() -> dict[str, float]:
    """Return the microseconds of each operation on the tree alone. Ids are `array('q')`."""
    fork = LONG[:50_000] + array("q", [-1]) * 50_000
    times = {
        "insert a new 100,000-token path": median_us(
            lambda: (RadixTree(), LONG[:], SLOTS[:]), lambda made: made[0].insert(made[1], made[2])
        ),
        "match a 100,000-token path in one node": median_us(lambda: tree_of(1), lambda tree: tree.match(LONG)),
        # The new halves are 1.6 MB. In a new process the system gives their pages one by one, which takes three times
        # as long, until the allocator keeps them.
        "match, splitting at 50,000": median_us(lambda: tree_of(1), lambda tree: tree.match(fork), unmeasured=100),
        "match a 100,000-token path of 100 nodes": median_us(lambda: tree_of(100), lambda tree: tree.match(LONG)),
    }
    chance = random.Random(1)
    branches = [LONG[:2_000] + array("q", (chance.randrange(49_000) for _ in range(100))) for _ in range(1_000)]
    tree = RadixTree()
    slots = [SLOTS[:2_000] + array("q", range(2_000 + 100 * i, 2_100 + 100 * i)) for i in range(1_000)]
    order = iter(range(1_000))
    times["insert such a branch"] = median_us(
        lambda: tree, lambda tree: tree.insert(branches[i := next(order)], slots[i]), 1_000
    )
    order = iter(range(1_000))
    times["match one of 1,000 branches"] = median_us(
        lambda: tree, lambda tree: tree.match(branches[next(order)]), 1_000
    )
    times["evict 50,000 tokens at once"] = median_us(branched_tree, lambda tree: tree.evict(50_000, lru), 9)
    return times | pressure_times()


def pressure_times() -> dict[str, float]:
    """Return the mean microseconds to evict from a full tree of 1,000 branches and insert one more branch.

    Both for the tree alone and for the cache, whose leases allocate and evict slots in batches.
    """
    chance, num, trunk = random.Random(2), 1_000, LONG[:2_000]
    branches = [trunk + array("q", (chance.randrange(49_000) for _ in range(100))) for _ in range(3 * num)]
    tree = branched_tree()
    started_at = time.perf_counter()
    for ids in branches[:num]:
        tree.insert(ids, SLOTS[:2_000] + array("q", tree.evict(100, lru)[DEVICE]))
    alone = (time.perf_counter() - started_at) / num
    cache = KVCache(SlotPool(102_000, [(1, 1, 1)], torch.float32, "cpu"))
    for i, ids in enumerate(branches):
        if i == num:
            started_at = time.perf_counter()
        lease = cache.lease(ids)
        assert cache.grow(lease, len(ids) - lease.cached_len), "nothing could be evicted"
        cache.commit(lease, ids)
        cache.release(lease)
    of_cache = (time.perf_counter() - started_at) / (2 * num)
    return {
        "evict and insert under pressure, the tree": 1e6 * alone,
        "the same through leases, policy tree": 1e6 * of_cache,
    }


def pane() -> tuple[list[array[int]], list[int]]:
    """Return the spans and parents of a trunk and its rows. Token ids are unique."""
    spans, parents = [array("q", range(TRUNK))], [-1]
    for _ in range(NUM_BRANCHES):
        above = 0
        for _ in range(NUM_TURNS):
            first = TRUNK + TURN * len(spans)
            spans.append(array("q", range(first, first + TURN)))
            parents.append(above)
            above = len(spans) - 1
    return spans, parents


def residency_times() -> dict[str, float]:
    spans, parents = pane()
    cache = KVCache(SlotPool(1 << 17, [(1, 1, 1)], torch.float32, "cpu"))
    paths: list[array[int]] = []
    for span, parent in zip(spans, parents, strict=True):
        paths.append((paths[parent] if parent >= 0 else array("q")) + span)
        lease = cache.lease(paths[-1])
        assert cache.grow(lease, len(paths[-1]) - lease.cached_len)
        cache.commit(lease, paths[-1])
        cache.release(lease)
    assert [cache.peek(path) for path in paths] == cache.peek_along(spans, parents)
    as_lists = [path.tolist() for path in paths]
    return {
        f"residency of {len(spans)} rows, one walk": median_us(
            lambda: None, lambda _: cache.peek_along(spans, parents), 15
        ),
        "the same, each by itself": median_us(lambda: None, lambda _: [cache.peek(path) for path in paths], 15),
        "the same, each by itself, from lists": median_us(
            lambda: None, lambda _: [cache.peek(path) for path in as_lists], 3
        ),
    }


def main() -> None:
    print(f"{platform.machine()}, Python {platform.python_version()}, microseconds")
    for name, value in (tree_times() | residency_times()).items():
        print(f"  {name:42} {value:10.1f}")


if __name__ == "__main__":
    main()
