"""Measure N simultaneous replies to one prompt: their speed and the slots that they use together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from statistics import median
from typing import Any

from treechat.bench.workload import Progress, Prompts, Sizes, first_token
from treechat_engine import Engine, SamplingParams


def measure_fan_outs(engine: Engine, prompts: Prompts, sizes: Sizes, progress: Progress) -> list[dict[str, Any]]:
    """Measure siblings below a cached prefix. `slots_unshared` is the number of slots of as many separate sequences."""
    prefix_len = sizes.prefix_lens[0]
    progress(f"fan-out: {sizes.num_siblings} replies of {sizes.sibling_len} tokens on {prefix_len:,}")
    rates, slots = [], 0
    for _ in range(sizes.num_repeats):
        engine.clear_cache()
        prefix = prompts.draw(prefix_len)
        first_token(engine, prefix)
        params = [
            SamplingParams(max_tokens=sizes.sibling_len, temperature=1.0, seed=seed, ignore_eos=True)
            for seed in range(sizes.num_siblings)
        ]
        begun = time.perf_counter()
        asyncio.run(_run(engine, prefix, params))
        rates.append(sizes.num_siblings * sizes.sibling_len / (time.perf_counter() - begun))
        stats = engine.stats()
        slots = stats.slots_total - stats.slots_free
    row = {
        "siblings": sizes.num_siblings,
        "prefix_tokens": prefix_len,
        "tokens_per_s": median(rates),
        "slots": slots,
        # The last token of a reply has no KV yet.
        "slots_unshared": sizes.num_siblings * (prefix_len + sizes.sibling_len - 1),
    }
    return [row]


async def _run(engine: Engine, prefix: list[int], params: list[SamplingParams]) -> None:
    group = engine.fan_out(prefix, params)
    await asyncio.gather(*(_drain(stream) for stream in group.streams))


async def _drain(stream: AsyncIterator[Any]) -> None:
    async for _ in stream:
        pass
