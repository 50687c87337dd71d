"""Compare decoding at batch 1: this engine and transformers' generate, with the same weights, threads and dtype.

    python -m tests.bench.decode_speed MODEL [--threads 2] [--tokens 32] [--rounds 3]

They alternate, and the best round of each counts, so other work on the machine affects both alike.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from treechat_engine import Engine, EngineConfig, SamplingParams, Token


class Clock:
    """A transformers streamer that records the time of each arrival: the prompt, then every token."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _value: object) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Do nothing: no token is held back."""


def decode_rate(times: list[float]) -> float:
    """Return the tokens per second after the first token."""
    return (len(times) - 1) / (times[-1] - times[0])


def run_transformers(model: Any, ids: list[int], num_tokens: int) -> tuple[float, list[int]]:
    clock = Clock()
    with torch.inference_mode():
        out = model.generate(
            torch.tensor([ids]), max_new_tokens=num_tokens, min_new_tokens=num_tokens, do_sample=False, streamer=clock
        )
    return decode_rate(clock.times[1:]), out[0, len(ids) :].tolist()


def run_engine(engine: Engine, ids: list[int], num_tokens: int) -> tuple[float, list[int]]:
    times, tokens = [], []
    for event in engine.submit(ids, SamplingParams(max_tokens=num_tokens, ignore_eos=True)):
        if isinstance(event, Token):
            times.append(time.perf_counter())
            tokens.append(event.id)
    return decode_rate(times), tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dtype = getattr(torch, args.dtype)
    reference = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype).eval()
    generator = torch.Generator().manual_seed(0)
    with Engine(AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype), EngineConfig(kv_tokens=8192)) as engine:
        for context in (64, 1500):
            rates: list[tuple[float, float]] = []
            agreed = 0
            for _ in range(args.rounds):
                ids = torch.randint(reference.config.vocab_size, (context,), generator=generator).tolist()
                theirs, expected = run_transformers(reference, ids, args.tokens)
                ours, tokens = run_engine(engine, ids, args.tokens)
                rates.append((theirs, ours))
                agreed += tokens == expected
            theirs, ours = (max(column) for column in zip(*rates, strict=True))
            print(
                f"context {context:5}: transformers {theirs:6.1f} tok/s, engine {ours:6.1f} tok/s, "
                f"ratio {ours / theirs:.2f}, same tokens in {agreed} of {args.rounds} rounds"
            )


if __name__ == "__main__":
    main()
