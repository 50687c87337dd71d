"""Decide whether to copy KV of a lower tier or to compute it again, by measurements on this machine.

The model is fitted at the start, and corrected by the measured rate of real prefills.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from treechat_engine.attention.context import Work
from treechat_engine.kvcache.cache import KVCache
from treechat_engine.runner import ModelRunner

# Tokens. Enough to measure a rate, and few enough to take a fraction of a second with any model.
FEW_TOKENS, MANY_TOKENS = 16, 64
# Bytes per second to read and hash a file: a slow disk.
DISK_RATE = 200e6


class CostModel:
    """The times to compute a token and to copy tokens from lower tiers.

    compute_s: seconds per computed token; None before the first measurement: restoring then counts as faster.
        `observe_compute` updates it.
    host_fixed_s: fixed seconds per copy from the host.
    host_s: seconds per token copied from the host.
    disk_s: seconds per token read from disk.
    """

    def __init__(self, token_bytes: int) -> None:
        self.compute_s: float | None = None
        self.host_fixed_s = 0.0
        self.host_s = 0.0
        self.disk_s = token_bytes / DISK_RATE

    def should_restore(self, num_host: int, num_disk: int) -> bool:
        """Return whether copying these tokens takes less time than computing them."""
        if self.compute_s is None:
            return True
        copy_s = self.host_fixed_s + num_host * self.host_s + num_disk * self.disk_s
        return copy_s < (num_host + num_disk) * self.compute_s

    def observe_compute(self, tokens_per_s: float) -> None:
        """Set the compute time to the measured rate of real prefills."""
        self.compute_s = 1 / tokens_per_s

    def fit(self, runner: ModelRunner, cache: KVCache) -> None:
        """Measure both times, on free slots. The cache must be empty and have a host tier."""
        host = cache.lower_tiers.host
        assert host is not None, "a cost model for a host tier that is not there"
        many = min(MANY_TOKENS, cache.num_slots, host.num_slots)
        few = min(FEW_TOKENS, many)
        device_slots, host_slots = cache.pool.allocate(many), host.allocate(many)
        extents = [(device_slots[i], 1) for i in range(many)]

        def compute() -> None:
            runner.step([Work([0] * few, 0, extents, True)])

        def copy(n: int) -> Callable[[], None]:
            return lambda: host.load(host_slots[:n], device_slots[:n])

        # Written first, so that no uninitialised row is read.
        host.rows[host_slots[0] : host_slots[0] + many].zero_()
        self.compute_s = _seconds(compute, runner.device) / few
        few_s, many_s = _seconds(copy(few), runner.device), _seconds(copy(many), runner.device)
        self.host_s = max(0.0, many_s - few_s) / max(1, many - few)
        self.host_fixed_s = max(0.0, few_s - few * self.host_s)
        cache.pool.free(device_slots)
        host.free(host_slots)


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    """Return the shortest of three durations."""
    times = []
    for _ in range(3):
        started_at = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started_at)
    return min(times)


def always_restore(num_host: int, num_disk: int) -> bool:
    """Always restore: replaces `CostModel.should_restore`, which depends on measured times."""
    return True
