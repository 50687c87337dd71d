"""Compare with transformers' `generate` in one process: decoding, siblings of one prefix, forks and jumps back.

    PYTHONPATH=.:engine:kernels python -m tests.bench.swarm [MODEL] [--threads 2] [--rounds 5] [--json]

All use the same weights, threads and tokens, and alternate. Each ratio is taken within a round. The table gives the
median over the rounds and the best round of each, since other work on the machine affects whichever runs then.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tests.bench.decode_speed import decode_rate, run_engine, run_transformers
from treechat.bench.machine import commit, machine_name
from treechat_engine import Engine, EngineConfig, SamplingParams, Token

FORMS = ("float32", "float16", "int8")
ONE = SamplingParams(max_tokens=1)


def load(model: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()


def siblings_rate(engine: Engine, prefix: list[int], num_siblings: int, num_tokens: int) -> float:
    """Return the tokens per second of siblings that decode together, after the first token of each."""
    times: list[float] = []

    async def read(stream: Any) -> None:
        async for event in stream:
            if isinstance(event, Token):
                times.append(time.perf_counter())

    async def run() -> None:
        params = [
            SamplingParams(max_tokens=num_tokens, temperature=1.0, seed=seed, ignore_eos=True)
            for seed in range(num_siblings)
        ]
        await asyncio.gather(*(read(stream) for stream in engine.fan_out(prefix, params).streams))

    asyncio.run(run())
    return decode_rate(times[num_siblings - 1 :])


def seconds(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def one_round(reference: Any, engines: dict[str, Engine], ids: list[int], args: argparse.Namespace) -> dict[str, float]:
    """Measure one round: rates in tokens per second, times in seconds."""
    exact = engines["float32"]
    for engine in engines.values():
        engine.clear_cache()
    figures = {"full prefill, s": seconds(lambda: exact.generate([ids], ONE))}
    # A fork replaces the last tokens of the cached path. A jump returns to the cached path and continues it.
    fork, own = [*ids[:-8], *reversed(ids[-8:])], list(range(100, 108))
    figures["fork, s"] = seconds(lambda: exact.generate([fork], ONE))
    figures["jump back, s"] = seconds(lambda: exact.generate([[*ids, *own]], ONE))
    figures["generate"], expected = run_transformers(reference, ids, args.tokens)
    for form, engine in engines.items():
        engine.generate([ids], ONE)
        figures[form], tokens = run_engine(engine, ids, args.tokens)
        if form == "float32":
            figures["same tokens"] = float(tokens == expected)
    figures["siblings"] = siblings_rate(exact, ids, args.siblings, args.tokens)
    return figures


def ratios(figures: dict[str, float]) -> dict[str, float]:
    """Return the speed-ups that the figures give."""
    found = {f"{form} against generate": figures[form] / figures["generate"] for form in FORMS}
    found["siblings against one"] = figures["siblings"] / figures["float32"]
    found["fork against full prefill"] = figures["full prefill, s"] / figures["fork, s"]
    found["jump back against fork"] = figures["fork, s"] / figures["jump back, s"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", help="a directory; default: the default model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=1500)
    parser.add_argument("--siblings", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.model is None:
        from treechat.models import resolve

        args.model = str(resolve().path)
    reference = load(args.model)
    engines = {
        form: Engine(load(args.model), EngineConfig(kv_tokens=4 * args.context + 2000, decode_weights=form))
        for form in FORMS
    }
    generator = torch.Generator().manual_seed(0)
    rounds = []
    for _ in range(args.rounds):
        ids = torch.randint(reference.config.vocab_size, (args.context,), generator=generator).tolist()
        rounds.append(one_round(reference, engines, ids, args))
    forward = engines["float32"].stats()
    for engine in engines.values():
        engine.close()
    report(args, rounds, f"{forward.forward}: {forward.forward_reason}")


def report(args: argparse.Namespace, rounds: list[dict[str, float]], forward: str) -> None:
    best = {name: (min if name.endswith(", s") else max)(figures[name] for figures in rounds) for name in rounds[0]}
    medians = {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}
    by_round = [ratios(figures) for figures in rounds]
    table = {
        name: {"median": statistics.median(each[name] for each in by_round), "best of each": value}
        for name, value in ratios(best).items()
    }
    about = {
        "machine": machine_name("cpu"),
        "model": Path(args.model).name,
        "dtype": "float32",
        "commit": commit(),
        "forward": forward,
        "workload": f"{args.context} tokens of context, {args.tokens} decoded, {args.siblings} siblings",
        "rounds": len(rounds),
    }
    if args.json:
        print(json.dumps({"about": about, "ratios": table, "medians": medians, "best": best}, indent=2))
        return
    for key, value in about.items():
        print(f"{key:<9} {value}")
    print(f"\n{'tokens/s, or seconds':<28} {'median':>8} {'best':>8}")
    for name, value in medians.items():
        print(f"{name:<28} {value:8.3f} {best[name]:8.3f}")
    print(f"\n{'times faster':<28} {'median':>8} {'best':>8}")
    for name, row in table.items():
        print(f"{name:<28} {row['median']:8.2f} {row['best of each']:8.2f}")


if __name__ == "__main__":
    main()
