"""What the tree of cached prefixes costs: the rows that SGLang's trees were measured at, and a tree pane's residency.

    python tests/bench/radix.py

Times in microseconds, medians; ids come as `array('q')`. The pane has 1,000 rows: a trunk of 2,000 tokens, 250 branches
off it with 4 turns each, 100 tokens a turn; `one walk` is what the app does, `each by itself` looks up every path.
"""

from __future__ import annotations

import platform
import statistics
import time
from array import array
from collections.abc import Callable

import bench_cache
import torch

from treechat_engine.cache import KVCache
from treechat_engine.slots import SlotPool

TRUNK, TURN, NUM_BRANCHES, NUM_TURNS = 2_000, 100, 250, 4


def median_us(work: Callable[[], object], repeats: int = 15) -> float:
    times = []
    for _ in range(repeats):
        started_at = time.perf_counter()
        work()
        times.append(time.perf_counter() - started_at)
    return 1e6 * statistics.median(times)


def pane() -> tuple[list[array[int]], list[int]]:
    """Spans and parents of a trunk and its rows; token ids are unique."""
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
        f"residency of {len(spans)} rows, one walk": median_us(lambda: cache.peek_along(spans, parents)),
        "the same, each by itself": median_us(lambda: [cache.peek(path) for path in paths]),
        "the same, each by itself, from lists": median_us(lambda: [cache.peek(path) for path in as_lists], 3),
    }


def main() -> None:
    print(f"{platform.machine()}, Python {platform.python_version()}, microseconds")
    for name, value in (bench_cache.tree_times() | residency_times()).items():
        print(f"  {name:42} {value:10.1f}")


if __name__ == "__main__":
    main()
