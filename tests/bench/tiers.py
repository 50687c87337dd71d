"""Measure a return to a branch whose KV left the device: computed again, copied from the host, or read from a file.

    python -m tests.bench.tiers [MODEL] [--tokens 512 1500] [--threads 2]

MODEL: a directory, a .gguf file or a hub id; default: the app's default model. The figures are the seconds to the first
token of a prompt of so many cached tokens and one new token, medians of five alternating runs.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import torch

from treechat.models import resolve
from treechat_engine import Engine, EngineConfig, SamplingParams

ONE = SamplingParams(max_tokens=1)


def timed(work: Callable[[], object]) -> float:
    started_at = time.perf_counter()
    work()
    return time.perf_counter() - started_at


def ask(engine: Engine, ids: array[int], found: str) -> float:
    """Return the seconds of a request of `ids` and one more token. `found`: the usage count that must cover all ids."""
    (done,) = engine.generate([[*ids, 7]], ONE)
    assert getattr(done.usage, found) >= len(ids), f"{found}: {done.usage}"
    return done.usage.ttft_s


def measure(engine: Engine, num_tokens: int, directory: Path) -> dict[str, float]:
    generator = torch.Generator().manual_seed(num_tokens)
    ids = array("q", torch.randint(1000, 40_000, (num_tokens,), generator=generator).tolist())
    cache, times = engine.cache, {name: [] for name in ("computed", "resident", "host", "disk", "save", "find")}
    for _ in range(5):
        engine.clear_cache()
        times["computed"].append(ask(engine, ids, "computed_tokens"))
        times["resident"].append(ask(engine, ids, "cached_tokens"))
        cache.evict(cache.num_cached)
        times["host"].append(ask(engine, ids, "restored_tokens"))
        for path in directory.glob("*"):
            path.unlink()
        times["save"].append(timed(lambda: engine.save_kv(directory)))
        engine.clear_cache()
        times["find"].append(timed(lambda: engine.load_kv(directory)))
        times["disk"].append(ask(engine, ids, "restored_tokens"))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 1500])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    longest = max(options.tokens)
    config = EngineConfig(kv_tokens=2 * longest, host_tokens=2 * longest, num_threads=options.threads)
    with Engine.load(resolve(options.model).path, config) as engine, tempfile.TemporaryDirectory() as directory:
        stats = engine.stats()
        print(f"{stats.model} on {stats.device}, {stats.dtype}; {platform.machine()}, {options.threads} threads")
        names = ("computed", "host", "disk", "resident", "save", "find")
        print(f"{'tokens':>8}" + "".join(f"{name:>10}" for name in names) + "   computed / host / disk")
        for num_tokens in options.tokens:
            times = measure(engine, num_tokens, Path(directory))
            ratios = f"{times['computed'] / times['host']:.0f}x / {times['computed'] / times['disk']:.0f}x"
            print(f"{num_tokens:8,}" + "".join(f"{times[name]:10.3f}" for name in names) + f"   {ratios}")


if __name__ == "__main__":
    main()
