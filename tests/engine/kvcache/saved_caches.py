"""Caches whose rows encode their token, saved to files and loaded again."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors import safe_open

from treechat_engine.kvcache.cache import KVCache
from treechat_engine.kvcache.saved_kv import SavedKV, load_kv, save_kv
from treechat_engine.kvcache.slots import SlotPool

PATH = list(range(100, 112))


def make_cache(num_slots: int = 64, **options) -> KVCache:
    return KVCache(SlotPool(num_slots, [(1, 2, 1)], torch.float32, "cpu", poison=True), **options)


def put(cache: KVCache, ids: list[int]) -> None:
    lease = cache.lease(ids)
    assert cache.grow(lease, len(ids) - lease.cached_len)
    values = torch.tensor(ids[lease.cached_len :]).float().view(-1, 1, 1)
    cache.pool.k[0][lease.slots[lease.cached_len :].tolist()] = values.expand(-1, 1, 2)
    cache.pool.v[0][lease.slots[lease.cached_len :].tolist()] = -values
    cache.commit(lease, ids)
    cache.release(lease)


def save(cache: KVCache, directory: Path, budget_bytes: int | None = None, model: str = "model") -> SavedKV:
    return save_kv(cache, nullcontext(), directory, model, budget_bytes)


def load(cache: KVCache, directory: Path, model: str = "model") -> SavedKV:
    return load_kv(cache, nullcontext(), directory, model)


def saved(directory: Path) -> None:
    """Save a trunk with two branches, which makes three files."""
    cache = make_cache()
    put(cache, PATH)
    put(cache, [*PATH, 1, 2])
    put(cache, [*PATH, 3, 4, 5])
    assert save(cache, directory).num_tokens == len(PATH) + 5


def files_of(directory: Path) -> dict[int, Path]:
    """Return the files by key: 0 for a file without a prefix, minus its length for a branch."""
    found = {}
    for path in directory.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            start, size = int(file.metadata()["prefix_len"]), len(file.get_tensor("ids"))
            found[-size if start else 0] = path
    return found
