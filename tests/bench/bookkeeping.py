"""Measure the engine's time around the model's forward in a decoding step: scheduling, tree, tables, sampling, events.

    python -m tests.bench.bookkeeping [--batch 8] [--context 1500] [--steps 200] [--threads 1] [--json]

The forward is replaced by one that always returns the same logits, so a step costs only its bookkeeping. Figures are
medians of the time between the starts of two forwards, while an asyncio loop reads the replies as an app does: the
wall-clock time, and the processor time of the engine's thread, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import platform
import statistics
import time
from typing import Any

import torch
import transformers

from treechat_engine import Engine, EngineConfig, SamplingParams

VOCAB_SIZE = 49_152
SAMPLING: dict[str, dict[str, Any]] = {
    "greedy": {},
    "temperature": {"temperature": 0.8},
    "top-k 40, top-p 0.9": {"temperature": 0.8, "top_k": 40, "top_p": 0.9},
    "top-p 0.9": {"temperature": 0.8, "top_p": 0.9},
    "min-p 0.05": {"temperature": 0.8, "min_p": 0.05},
    "repetition 1.1, greedy": {"repetition_penalty": 1.1},
    "greedy, 5 alternatives": {"top_logprobs": 5},
}


def make_engine(batch: int, context: int, steps: int, num_threads: int) -> Engine:
    config = transformers.LlamaConfig(
        vocab_size=VOCAB_SIZE, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=1 << 17, eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    num_slots = context * batch + batch * (steps + 64)
    return Engine(
        transformers.LlamaForCausalLM(config).eval(),
        EngineConfig(kv_tokens=num_slots, max_batch=batch, num_threads=num_threads, self_check=False),
    )


def null_forward(engine: Engine, batch: int) -> list[tuple[float, float]]:
    """Replace the model's forward. Return a list that fills with the times of its calls while the whole batch decodes.

    Each item is (wall-clock time, processor time of the thread).
    """
    generator = torch.Generator().manual_seed(0)
    # Distributed as in a language model: half of the mass on a few tokens, the rest on a long tail.
    ranks = torch.stack([torch.randperm(VOCAB_SIZE, generator=generator) for _ in range(batch)])
    logits = -1.5 * (ranks + 1).log()
    starts: list[tuple[float, float]] = []

    def forward(input_ids: torch.Tensor, _positions: torch.Tensor, index: torch.Tensor | None) -> torch.Tensor:
        num_rows = input_ids.shape[1] if index is None else len(index)
        if input_ids.shape[1] == batch == num_rows:
            starts.append((time.perf_counter(), time.thread_time()))
        return logits[:num_rows]

    runner = engine.worker.runner
    runner.fused = None
    runner.forward_model = forward  # type: ignore[method-assign]
    return starts


async def measure(
    engine: Engine, starts: list[tuple[float, float]], batch: int, context: int, steps: int, options: Any
) -> tuple[float, float]:
    """Return the milliseconds per step: wall-clock time and processor time."""
    starts.clear()
    generator = torch.Generator().manual_seed(1)
    shared = torch.randint(VOCAB_SIZE, (context,), generator=generator).tolist()
    params = [SamplingParams(max_tokens=steps, seed=n, ignore_eos=True, **options) for n in range(batch)]

    async def read(stream: Any) -> None:
        async for _ in stream:
            pass

    await asyncio.gather(*map(read, engine.fan_out(shared, params).streams))
    clock, processor = zip(*((b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(starts)), strict=True)
    return 1e3 * statistics.median(clock), 1e3 * statistics.median(processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--context", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures = {}
    with make_engine(args.batch, args.context, args.steps, args.threads) as engine:
        starts = null_forward(engine, args.batch)
        for name, options in SAMPLING.items():
            run = measure(engine, starts, args.batch, args.context, args.steps, options)
            clock, processor = asyncio.run(run)
            figures[name] = {"clock": round(clock, 3), "processor": round(processor, 3)}
    machine = f"{platform.machine()}, {args.threads} threads, torch {torch.__version__}"
    workload = f"batch {args.batch}, {args.context} tokens of context, vocabulary {VOCAB_SIZE:,}, float32"
    if args.json:
        print(json.dumps({"machine": machine, "workload": workload, "ms_per_step": figures}))
        return
    print(f"ms per decode step around the forward: {workload}; {machine}")
    for name, value in figures.items():
        print(f"  {name:24} clock {value['clock']:7.3f}   processor {value['processor']:7.3f}")


if __name__ == "__main__":
    main()
