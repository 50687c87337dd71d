"""Measure the time to first token of a jump and of a fork, against a full prefill of a prompt of the same length.

The full prefill runs on an empty cache and also caches the branch. The resumed prompt ends in other new tokens, so only
the path above them can be reused.
"""

from __future__ import annotations

from typing import Any

from treechat.bench.workload import FirstToken, Progress, Prompts, Sizes, first_token, resume_row
from treechat_engine import Engine


def measure_jumps(engine: Engine, prompts: Prompts, sizes: Sizes, progress: Progress) -> list[dict[str, Any]]:
    """Prefill branch A, then branch B of the same prefix, and measure a new turn below A."""
    rows = []
    for prefix_len in sizes.prefix_lens:
        for new_len in sizes.new_lens:
            progress(f"jump: {prefix_len:,} tokens, branches of {sizes.branch_len}, {new_len} new")
            runs = [_jump(engine, prompts, prefix_len, sizes.branch_len, new_len) for _ in range(sizes.num_repeats)]
            rows.append(resume_row(prefix_len, sizes.branch_len, new_len, runs))
    return rows


def _jump(engine: Engine, prompts: Prompts, prefix_len: int, branch_len: int, new_len: int) -> tuple[FirstToken, float]:
    prefix = prompts.draw(prefix_len)
    a, b = prefix + prompts.draw(branch_len), prefix + prompts.draw(branch_len)
    engine.clear_cache()
    full_s = first_token(engine, a + prompts.draw(new_len)).ttft_s
    first_token(engine, b)
    return first_token(engine, a + prompts.draw(new_len)), full_s


def measure_forks(engine: Engine, prompts: Prompts, sizes: Sizes, progress: Progress) -> list[dict[str, Any]]:
    """Measure a new turn below a prefix that already has another continuation."""
    rows = []
    for prefix_len in sizes.prefix_lens:
        new_len = sizes.new_lens[0]
        progress(f"fork: {prefix_len:,} tokens, {new_len} new")
        runs = [_fork(engine, prompts, prefix_len, new_len) for _ in range(sizes.num_repeats)]
        rows.append(resume_row(prefix_len, 0, new_len, runs))
    return rows


def _fork(engine: Engine, prompts: Prompts, prefix_len: int, new_len: int) -> tuple[FirstToken, float]:
    prefix = prompts.draw(prefix_len)
    engine.clear_cache()
    full_s = first_token(engine, prefix + prompts.draw(new_len)).ttft_s
    return first_token(engine, prefix + prompts.draw(new_len)), full_s
