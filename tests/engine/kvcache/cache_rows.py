"""A cache whose KV encodes the prefix that it was computed from, and functions that write it like a forward."""

from __future__ import annotations

from typing import Any

import torch

from treechat_engine.kvcache.cache import KVCache, Lease
from treechat_engine.kvcache.slots import SlotPool


def make_cache(num_slots: int, **options: Any) -> KVCache:
    return KVCache(SlotPool(num_slots, [(1, 1, 1)], torch.float32, "cpu", poison=True), **options)


def kv_of(ids: list[int]) -> list[float]:
    """Return the KV that each position of a path must hold: a value of its whole prefix, exact in float32."""
    return [float(hash(tuple(ids[: n + 1])) % 1_000_003) for n in range(len(ids))]


def write(cache: KVCache, lease: Lease, ids: list[int], start: int) -> None:
    """Write the KV of ids[start:] to the lease's slots, as a forward does."""
    rows = torch.tensor(kv_of(ids)[start:]).view(-1, 1, 1)
    cache.pool.k[0][lease.slots[start : len(ids)]] = rows
    cache.pool.v[0][lease.slots[start : len(ids)]] = -rows


def read(cache: KVCache, lease: Lease, length: int) -> list[float]:
    """Return the first `length` rows through the lease's extents, as attention on the CPU reads them."""
    keys = torch.cat([cache.pool.k[0][start : start + n] for start, n in lease.extents] or [torch.empty(0, 1, 1)])
    values = cache.pool.v[0][lease.slots[:length]]
    assert keys[:length].equal(-values)
    return keys[:length].flatten().tolist()


def run(cache: KVCache, ids: list[int]) -> Lease:
    """Lease, compute and commit all of `ids`."""
    lease = cache.lease(ids)
    assert cache.grow(lease, len(ids) - lease.cached_len)
    write(cache, lease, ids, lease.cached_len)
    cache.commit(lease, ids)
    return lease
