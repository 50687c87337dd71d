"""What the cache's bookkeeping costs, and in how many runs its paths lie. No model: run it as a script.

The long session: 600 turns that go on from, or fork inside, one of the 40 latest paths; a prompt of 20 to 600 tokens, a
reply of 50 to 400, in a pool that is full after the first quarter. Runs are counted over the second half.
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

from treechat_engine.cache import KVCache
from treechat_engine.radix import RadixTree
from treechat_engine.slots import SlotPool

T = TypeVar("T")

LONG = array("q", (random.Random(0).randrange(49_000) for _ in range(100_000)))
SLOTS = array("q", range(100_000))


def median_us(make: Callable[[], T], work: Callable[[T], object], repeats: int = 21) -> float:
    """Median time of `work` on what `make` makes anew each time, in microseconds."""
    times = []
    for _ in range(repeats):
        tree = make()
        start = time.perf_counter()
        work(tree)
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


def tree_of(num_nodes: int) -> RadixTree:
    """The long path in a chain of `num_nodes` nodes."""
    tree, node, size = RadixTree(), None, len(LONG) // max(1, num_nodes)
    for start in range(0, size * num_nodes, size):
        node = tree.insert(LONG[start : start + size], SLOTS[start : start + size], node).node
    return tree


def branched() -> RadixTree:
    """1,000 branches of 100 tokens off a trunk of 2,000, each used twice."""
    chance, tree = random.Random(1), RadixTree()
    for i in range(1_000):
        ids = LONG[:2_000] + array("q", (chance.randrange(49_000) for _ in range(100)))
        tree.insert(ids, SLOTS[:2_000] + array("q", range(2_000 + 100 * i, 2_100 + 100 * i)))
        tree.match(ids)
    return tree


def tree_times() -> dict[str, float]:
    """Microseconds per operation on the tree alone; ids come as array('q')."""
    fork = LONG[:50_000] + array("q", [-1]) * 50_000
    times = {
        "insert a new 100,000-token path": median_us(
            lambda: (RadixTree(), LONG[:], SLOTS[:]), lambda made: made[0].insert(made[1], made[2])
        ),
        "match a 100,000-token path in one node": median_us(lambda: tree_of(1), lambda tree: tree.match(LONG)),
        "match, splitting at 50,000": median_us(lambda: tree_of(1), lambda tree: tree.match(fork)),
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
    times["evict 50,000 tokens at once"] = median_us(branched, lambda tree: tree.evict(50_000), 9)
    return times


def long_session(num_slots: int, num_turns: int = 600) -> dict[str, float]:
    """Mean runs and length of the paths in the second half of the session, and how full the pool is."""
    cache = KVCache(SlotPool(num_slots, [(1, 1, 1)], torch.float32, "cpu"))
    chance = random.Random(0)
    paths: list[list[int]] = []
    lengths, runs, full = [], [], []
    for _ in range(num_turns):
        ids = [chance.randrange(9) for _ in range(30)]
        if paths and chance.random() > 0.1:
            ids = chance.choice(paths[-40:])
            if chance.random() < 0.3:
                ids = ids[: chance.randrange(20, len(ids))]
        ids = ids + [chance.randrange(49_000) for _ in range(chance.randrange(20, 600))]
        lease = cache.lease(ids)
        while len(lease.slots) < len(ids):
            assert cache.grow(lease, min(512, len(ids) - len(lease.slots))), "the pool is too small for one path"
            cache.commit(lease, ids[: len(lease.slots)])
        for _ in range(chance.randrange(50, 400)):
            assert cache.grow(lease, 1), "the pool is too small for one path"
            ids.append(chance.randrange(49_000))
        cache.commit(lease, ids)
        lengths.append(len(ids))
        runs.append(len(lease.runs))
        full.append(1 - cache.num_free / num_slots)
        cache.release(lease)
        paths.append(ids)
    half = num_turns // 2
    return {
        "runs per path": statistics.mean(runs[half:]),
        "tokens per path": statistics.mean(lengths[half:]),
        "share of the pool in use": statistics.mean(full[half:]),
    }


def main() -> None:
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    )
    print("\nthe tree, microseconds")
    for name, value in tree_times().items():
        print(f"  {name:42} {value:8.1f}")
    for num_slots in (65_536, 131_072):
        print(f"\na long session in {num_slots:,} slots")
        for name, value in long_session(num_slots).items():
            print(f"  {name:42} {value:8.2f}")


if __name__ == "__main__":
    main()
