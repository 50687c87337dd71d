"""Run all measurements and return them as one document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from treechat.bench.decoding import measure_decoding
from treechat.bench.machine import commit, machine_name
from treechat.bench.resuming import measure_forks, measure_jumps
from treechat.bench.sibling_replies import measure_fan_outs
from treechat.bench.workload import Progress, Prompts, Sizes, first_token
from treechat_engine import Engine

PARTS = ("jump", "fork", "fan_out", "decode")


def measure(
    engine: Engine, name: str, path: Path, sizes: Sizes, progress: Progress, parts: Sequence[str] = PARTS
) -> dict[str, Any]:
    """Run the parts and return their rows by part, with the machine, model and commit.

    engine: the loaded model.
    name: the model's name for people.
    path: its files, which transformers' generate also reads.
    sizes: the lengths and repeats.
    progress: called with a line of text before each measurement.
    parts: the parts to run; the others get no rows.
    """
    stats = engine.stats()
    if engine.config.num_threads:
        torch.set_num_threads(engine.config.num_threads)
    config = AutoConfig.from_pretrained(path, local_files_only=True)
    prompts = Prompts(config.get_text_config().vocab_size)
    # The first forward of a process is slower, since it allocates memory.
    first_token(engine, prompts.draw(64))
    runs: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "jump": lambda: measure_jumps(engine, prompts, sizes, progress),
        "fork": lambda: measure_forks(engine, prompts, sizes, progress),
        "fan_out": lambda: measure_fan_outs(engine, prompts, sizes, progress),
        "decode": lambda: measure_decoding(engine, path, prompts, sizes, progress),
    }
    head = {"machine": machine_name(stats.device), "model": name, "dtype": stats.dtype, "commit": commit()}
    return head | {part: runs[part]() if part in parts else [] for part in PARTS}
