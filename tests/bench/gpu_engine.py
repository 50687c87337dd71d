"""Measure the engine on models of real shapes: decoding, time to first token of jumps and forks, and a swarm."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DynamicCache, StaticCache

from tests.bench import gpu_common, gpu_kernels, gpu_rivals
from tests.bench.gpu_common import Ceilings, Report
from tests.bench.gpu_models import kv_bytes_per_token, weight_bytes
from treechat_engine import Engine, EngineConfig, SamplingParams

NEW_TOKENS = 65
VOCABULARY = 40_000
DECODES = ((1, 1024), (1, 8192), (1, 32768), (4, 8192), (8, 8192), (16, 8192), (16, 1024))
# The cases that are also decoded without graphs and by transformers.
COMPARED = ((1, 8192), (8, 8192))
# The models also decoded by transformers' continuous batching, which takes seconds to capture graphs.
CONTINUOUS = ("0.5B", "8B")
# Tokens of the paths that a turn continues; then of the agents' shared prompt and of each reply.
RESUMED = (1024, 8192, 32768)
SWARM, REPLY = 6000, 200


@contextmanager
def _engine(model: Any, num_slots: int, **options: Any) -> Iterator[Engine]:
    """Yield an engine, after freeing the memory of earlier ones. Callers must delete theirs."""
    config = EngineConfig(device=gpu_common.DEVICE, dtype="bfloat16", kv_tokens=num_slots, max_batch=16, **options)
    gpu_common.release()
    with Engine(model, config) as engine:
        engine.worker.runner.tiles = gpu_kernels.CHOSEN_TILES
        yield engine


def _ids(length: int) -> list[int]:
    return random.choices(range(VOCABULARY), k=length)


def _fill(engine: Engine, prompts: Sequence[list[int]]) -> None:
    """Cache the prompts with random keys and values, whose content does not affect the speed of decoding."""
    with engine.worker.lock, torch.inference_mode():
        for rows in (*engine.cache.pool.k, *engine.cache.pool.v):
            rows.normal_()
        for ids in prompts:
            lease = engine.cache.lease(ids)
            assert engine.cache.grow(lease, len(ids) - len(lease.slots)), "the pool is too small"
            engine.cache.commit(lease, ids)
            engine.cache.release(lease)


def _decode_rate(engine: Engine, batch: int, context: int) -> float:
    """Return the tokens per second of all replies together, from the last reply's first token to the end."""
    engine.clear_cache()
    prompts = [_ids(context) for _ in range(batch)]
    _fill(engine, prompts)
    params = SamplingParams(max_tokens=NEW_TOKENS, ignore_eos=True)
    rates = []
    for _ in range(3):
        done = engine.generate([[*ids, 1, 2] for ids in prompts], params)
        first = max(each.usage.ttft_s for each in done)
        last = max(each.usage.total_s for each in done)
        rates.append(batch * (NEW_TOKENS - 1) / (last - first))
    return statistics.median(rates)


def _generate_rate(model: Any, batch: int, context: int, make_cache: Callable[[int], Any], **options: Any) -> float:
    """Return the tokens per second of transformers' generate over a cache of random keys and values."""
    config = model.config
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    model.set_attn_implementation("sdpa")
    cache = make_cache(context + NEW_TOKENS + 8)
    for layer in range(config.num_hidden_layers):
        k, v = (
            torch.randn(batch, config.num_key_value_heads, context, dim, device=gpu_common.DEVICE, dtype=torch.bfloat16)
            for _ in range(2)
        )
        cache.update(k, v, layer, {"cache_position": torch.arange(context, device=gpu_common.DEVICE)})
    ids = torch.tensor([_ids(context + 1) for _ in range(batch)], device=gpu_common.DEVICE)
    times: list[float] = []

    def clock(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        gpu_common.finish()
        times.append(time.perf_counter())
        return scores

    with torch.inference_mode():
        model.generate(
            ids, attention_mask=torch.ones_like(ids), past_key_values=cache, max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS, do_sample=False, logits_processor=[clock], pad_token_id=0, **options,
        )  # fmt: skip
    # The first half of the steps is warm-up, in which a compiled forward compiles.
    tail = times[len(times) // 2 :]
    return batch * (len(tail) - 1) / (tail[-1] - tail[0])


def decode(report: Report, limits: Ceilings, name: str, model: Any) -> None:
    per_token, weights = kv_bytes_per_token(model.config), weight_bytes(model)
    budget = int(gpu_common.free_bytes() * 0.8) // per_token
    cases = [(batch, context) for batch, context in DECODES if batch * (context + 200) < budget]
    num_slots = max(batch * (context + 200) for batch, context in cases)
    rates: dict[tuple[int, int], dict[str, Any]] = {}
    for graphs in (True, False):
        with _engine(model, num_slots, cuda_graphs=graphs) as engine:
            for case in cases:
                # The first case is always measured.
                if (rates or not graphs) and report.is_over(f"{name}: decode"):
                    break
                if graphs or (case in COMPARED and case in rates):
                    rate = _decode_rate(engine, *case)
                    rates.setdefault(case, {})["tokens_per_s" if graphs else "eager_tokens_per_s"] = rate
            if graphs:
                stats = engine.stats()
                report.note(f"{name}: {stats.forward} forward ({stats.forward_reason}), graphs: {stats.graphs}")
        del engine
    for (batch, context), found in rates.items():
        floor = (weights + batch * context * per_token) / limits.bytes_per_s
        share = found["tokens_per_s"] / batch * floor
        report.row("decode", model=name, batch=batch, context=context, of_bandwidth=share, **found)


def others(report: Report, _limits: Ceilings, name: str, model: Any) -> None:
    """Measure the tokens per second of transformers' generate with its caches."""
    for batch, context in COMPARED:
        if report.is_late:
            report.note(f"{name}: no time for the others")
            return
        report.row("generate", model=name, batch=batch, context=context, **_others(report, name, model, batch, context))
        gpu_common.release()


def _others(report: Report, name: str, model: Any, batch: int, context: int) -> dict[str, float | str]:
    config = model.config
    ways: dict[str, tuple[Callable[[int], Any], dict[str, Any]]] = {
        "generate_dynamic": (lambda _: DynamicCache(config=config), {}),
        "generate_static": (lambda length: StaticCache(config=config, max_cache_len=length), {"disable_compile": True}),
    }
    if name == "0.5B" and batch == 1:
        ways["generate_static_compiled"] = (ways["generate_static"][0], {})
    found: dict[str, float | str] = {}
    for way, (make_cache, options) in ways.items():
        try:
            found[way] = _generate_rate(model, batch, context, make_cache, **options)
        except Exception as error:  # noqa: BLE001 - the reason replaces the figure
            found[way] = gpu_rivals.reason(error)
    if report.is_late or name not in CONTINUOUS:
        return found
    gpu_common.release()
    try:
        found["continuous_batching"] = gpu_rivals.continuous_rate(model, batch, context, NEW_TOKENS)
    except Exception as error:  # noqa: BLE001 - the reason replaces the figure
        found["continuous_batching"] = gpu_rivals.reason(error)
    return found


def resume(report: Report, _limits: Ceilings, name: str, model: Any) -> None:
    """Measure the time to first token of a full prefill, a jump back to a branch and a fork, 29 new tokens each."""
    one = SamplingParams(max_tokens=1, ignore_eos=True)
    num_slots = max(RESUMED) + 3300
    with _engine(model, num_slots, host_tokens=num_slots) as engine:
        engine.generate([_ids(min(3000, num_slots - 2))], one)
        for length in RESUMED:
            if report.is_late:
                report.note(f"{name}: no time to resume at {length}")
                return
            figures: dict[str, list[float]] = {"full": [], "jump": [], "fork": []}
            for _ in range(3):
                engine.clear_cache()
                prefix = _ids(length - 250)
                a, b = prefix + _ids(250), prefix + _ids(250)
                for kind, ids in (("full", a), ("", b), ("jump", a + _ids(29)), ("fork", prefix + _ids(29))):
                    (done,) = engine.generate([ids], one)
                    if kind:
                        figures[kind].append(done.usage.ttft_s)
            full, jump, fork = (statistics.median(each) for each in figures.values())
            report.row(
                "resume", model=name, tokens=length, full_ms=full * 1e3, jump_ms=jump * 1e3, fork_ms=fork * 1e3,
                jump_faster=full / jump, restore_ms=_restore(engine, a, one) * 1e3,
            )  # fmt: skip


def _restore(engine: Engine, ids: list[int], one: SamplingParams) -> float:
    """Return the time to first token of a path in host memory, without the time to move it there."""
    engine.cache.should_restore = None
    with engine.worker.lock:
        engine.cache.evict(engine.cache.num_slots)
        host = engine.cache.lower_tiers.host
        assert host is not None, "restoring without a host tier"
        host.wait()
    (done,) = engine.generate([[*ids, 3]], one)
    return done.usage.ttft_s if done.usage.restored_tokens > len(ids) // 2 else float("nan")


def swarm(report: Report, _limits: Ceilings, name: str, model: Any) -> None:
    """Measure five agents with a shared prompt, and with five separate prompts."""
    if report.is_late:
        report.note(f"{name}: no time for the swarm")
        return
    params = [SamplingParams(max_tokens=REPLY, ignore_eos=True) for _ in range(5)]
    with _engine(model, 5 * (SWARM + REPLY) + 9000) as engine:
        engine.generate([_ids(3000)], SamplingParams(max_tokens=40, ignore_eos=True))
        found: dict[str, Any] = {}
        for kind in ("shared", "separate"):
            rates = []
            for _ in range(3):
                engine.clear_cache()
                shared = _ids(SWARM)
                prompts = [(shared if kind == "shared" else _ids(SWARM)) + _ids(20) for _ in range(5)]
                begun = time.perf_counter()
                engine.generate(prompts, params)
                rates.append(5 * REPLY / (time.perf_counter() - begun))
            stats = engine.stats()
            found[f"{kind}_tokens_per_s"] = statistics.median(rates)
            found[f"{kind}_slots"] = stats.slots_cached
        report.row("swarm", model=name, agents=5, prompt=SWARM, reply=REPLY, **found)
        rates = []
        for _ in range(3):
            begun = time.perf_counter()
            asyncio.run(_fan_out(engine, shared, params))
            rates.append(5 * REPLY / (time.perf_counter() - begun))
        report.row("fan-out of a warm prefix", model=name, siblings=5, tokens_per_s=statistics.median(rates))


async def _fan_out(engine: Engine, ids: list[int], params: list[SamplingParams]) -> None:
    group = engine.fan_out(ids, params)

    async def drain(stream: Any) -> None:
        async for _ in stream:
            pass

    await asyncio.gather(*(drain(stream) for stream in group.streams))
