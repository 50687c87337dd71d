"""Count the extents that the paths of a long session lie in, and how full the pool is, without a model.

    python -m tests.bench.long_session

600 turns continue, or fork inside, one of the 40 latest paths, with a prompt of 20 to 600 tokens and a reply of 50 to
400. The pool is full after the first quarter. Extents are counted in the second half.
"""

from __future__ import annotations

import random
import statistics

import torch

from treechat_engine.kvcache.cache import KVCache
from treechat_engine.kvcache.slots import SlotPool


def long_session(num_slots: int, num_turns: int = 600) -> dict[str, float]:
    """Return the means over the second half: extents and tokens per path, and the share of the pool in use."""
    cache = KVCache(SlotPool(num_slots, [(1, 1, 1)], torch.float32, "cpu"))
    chance = random.Random(0)
    paths: list[list[int]] = []
    lengths, extents, full = [], [], []
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
        extents.append(len(lease.extents))
        full.append(1 - cache.num_free / num_slots)
        cache.release(lease)
        paths.append(ids)
    half = num_turns // 2
    return {
        "extents per path": statistics.mean(extents[half:]),
        "tokens per path": statistics.mean(lengths[half:]),
        "share of the pool in use": statistics.mean(full[half:]),
    }


def main() -> None:
    for num_slots in (65_536, 131_072):
        print(f"a long session in {num_slots:,} slots")
        for name, value in long_session(num_slots).items():
            print(f"  {name:42} {value:8.2f}")


if __name__ == "__main__":
    main()
