"""Measure five agents on one prompt, cold and warm, at once and one by one: device slots, computed tokens, seconds.

    python -m tests.bench.agents [MODEL] [--rules 4000] [--source 2000] [--tokens 200] [--agents 5] [--json]

Each agent's prompt is the same rules and source plus its own question of 20 tokens; each generates `tokens` tokens. In
`separate` nothing is shared: the prompts have the same length and different tokens.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from treechat.bench.machine import commit, machine_name
from treechat_engine import Engine, EngineConfig, SamplingParams

QUESTION = 20


def ids(vocab_size: int, num_tokens: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocab_size, (num_tokens,), generator=generator).tolist()


def run(engine: Engine, prompts: list[list[int]], num_tokens: int, at_once: bool) -> dict[str, float]:
    """Run all prompts to their end and return the figures."""
    params = [
        SamplingParams(max_tokens=num_tokens, temperature=1.0, seed=n, ignore_eos=True) for n in range(len(prompts))
    ]
    begun = time.perf_counter()
    if at_once:
        done = engine.generate(prompts, params)
    else:
        done = [engine.generate([prompt], each)[0] for prompt, each in zip(prompts, params, strict=True)]
    seconds = time.perf_counter() - begun
    return {
        "slots": engine.stats().slots_cached,
        "computed": sum(each.usage.computed_tokens for each in done),
        "seconds": seconds,
        "tokens/s": len(prompts) * num_tokens / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", help="a directory; default: the default model")
    parser.add_argument("--rules", type=int, default=4000)
    parser.add_argument("--source", type=int, default=2000)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--agents", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.model is None:
        from treechat.models import resolve

        args.model = str(resolve().path)
    length = args.rules + args.source
    num_slots = args.agents * (length + QUESTION + args.tokens + 64)
    config = EngineConfig(kv_tokens=num_slots, max_batch=args.agents, num_threads=args.threads)
    table: dict[str, dict[str, float]] = {}
    with Engine.load(args.model, config) as engine:
        vocab_size = engine.spec.vocab_size
        shared = ids(vocab_size, length, 0)
        prompts = [shared + ids(vocab_size, QUESTION, 1 + n) for n in range(args.agents)]
        for name, is_warm, at_once in (
            ("cold, at once", False, True),
            ("cold, one by one", False, False),
            ("warm, at once", True, True),
            ("warm, one by one", True, False),
        ):
            engine.clear_cache()
            if is_warm:
                engine.warm(shared).result()
            table[name] = run(engine, prompts, args.tokens, at_once)
        engine.clear_cache()
        separate = [ids(vocab_size, length + QUESTION, 100 + n) for n in range(args.agents)]
        table["separate, at once"] = run(engine, separate, args.tokens, True)
    about: dict[str, Any] = {
        "machine": machine_name("cpu"),
        "model": Path(args.model).name,
        "commit": commit(),
        "workload": f"{args.agents} agents, {args.rules} + {args.source} + {QUESTION} tokens, {args.tokens} each",
    }
    if args.json:
        print(json.dumps({"about": about, "table": table}, indent=2))
        return
    for key, value in about.items():
        print(f"{key:<9} {value}")
    print(f"\n{'':<20} {'slots':>8} {'computed':>9} {'seconds':>8} {'tokens/s':>9}")
    for name, row in table.items():
        print(f"{name:<20} {row['slots']:>8} {row['computed']:>9} {row['seconds']:8.1f} {row['tokens/s']:9.1f}")


if __name__ == "__main__":
    main()
