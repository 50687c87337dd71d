"""The scheduler and its cache without a model or a thread, step by step: random prompts, cancels and failures."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator

import pytest
import torch

from treechat_engine import SamplingParams
from treechat_engine.kvcache.cache import KVCache
from treechat_engine.kvcache.slots import SlotPool
from treechat_engine.request import Request
from treechat_engine.sampling.sampler import Sampler
from treechat_engine.scheduler import Planned, Scheduler

VOCAB = 50
NUM_REQUESTS = 25


class Simulation:
    """A scheduler whose steps compute nothing. Every plan is checked against the scheduler's guarantees."""

    def __init__(self, num_slots: int, max_batch: int, chunk: int, host_slots: int = 0, **options) -> None:
        pool = SlotPool(num_slots, [(1, 1, 1)], torch.float32, "cpu")
        self.scheduler = Scheduler(KVCache(pool, host_slots=host_slots), max_batch, chunk, **options)
        self.finished: list[int] = []
        self.num_submitted = 0

    def submit(self, ids: list[int], priority: str, num_tokens: int = 1) -> Request:
        self.num_submitted += 1
        params = SamplingParams(max_tokens=num_tokens)
        sampler = None if priority == "warm" else Sampler(params, ids, VOCAB)
        request = Request(
            self.num_submitted, array("q", ids), params, priority, num_tokens, frozenset(), sampler, lambda _: True
        )
        self.scheduler.add(request)
        return request

    @property
    def live(self) -> list[Request]:
        return [*self.scheduler.running, *self.scheduler.waiting]

    def end(self, request: Request) -> None:
        self.scheduler.end(request)
        self.finished.append(request.id)

    def step(self, fails: bool = False) -> list[Planned]:
        """Run one step. If it fails, its requests end."""
        scheduler = self.scheduler
        decoding = {r for r in scheduler.running if r.num_remaining == 1}
        planned = scheduler.plan()
        served = {item.request for item in planned}
        for request in scheduler.take_finished_warm():
            self.end(request)
        num_prompt = sum(item.num_tokens for item in planned if item.request not in decoding)
        assert num_prompt <= scheduler.prefill_chunk, f"{num_prompt} prompt tokens in a step"
        assert len(planned) <= scheduler.max_batch
        passed = [r for r in decoding - served if r.lease is not None and not r.is_warm]
        assert not passed, f"{len(passed)} running streams had no part in a step"
        for item in planned:
            self._advance(item, fails)
        return planned

    def _advance(self, item: Planned, fails: bool) -> None:
        request, wants = item.request, item.needs_logits or item.end_logits is not None
        if fails:
            self.end(request)
            return
        request.add_computed(item.num_tokens)
        self.scheduler.commit(request)
        if wants:
            if not request.num_sampled:
                self.scheduler.end_logits.put(request.prompt_key, torch.zeros(VOCAB))
            request.ids.append(request.id % VOCAB)
        if request.num_sampled >= request.max_tokens or (request.is_warm and not request.num_remaining):
            self.end(request)


def prompts(rng: random.Random, num_slots: int) -> Iterator[list[int]]:
    """Yield prompts with common beginnings, of one token up to all slots."""
    trunks = [[rng.randrange(VOCAB) for _ in range(num_slots)] for _ in range(3)]
    while True:
        size = min(rng.choice([1, 2, 5, 20, num_slots // 3, num_slots - 3, num_slots]), num_slots)
        cut = rng.randrange(size + 1)
        yield rng.choice(trunks)[:cut] + [rng.randrange(VOCAB) for _ in range(size - cut)]


@pytest.mark.parametrize("seed", range(9))
def test_random_requests_cancels_and_failures_all_end_and_every_slot_is_freed(seed: int) -> None:
    rng = random.Random(seed)
    num_slots = (12, 40, 200)[seed % 3]
    simulation = Simulation(
        num_slots,
        max_batch=rng.choice([1, 2, 4, 8]),
        chunk=rng.choice([1, 4, 16, 64]),
        host_slots=rng.choice([0, 30]),
        patience=16,
        deterministic=seed % 4 == 3,
    )
    ids = prompts(rng, num_slots)
    num_steps = 0
    while simulation.num_submitted < NUM_REQUESTS or simulation.live:
        while simulation.num_submitted < NUM_REQUESTS and rng.random() < 0.5:
            prompt = next(ids)
            most = num_slots - len(prompt) + 1
            simulation.submit(prompt, rng.choice(["interactive", "fan-out", "warm"]), min(rng.choice([1, 3, 30]), most))
        for request in simulation.live:
            if rng.random() < 0.01:
                simulation.end(request)
        if simulation.live:
            simulation.step(fails=rng.random() < 0.01)
        simulation.scheduler.cache.check()
        num_steps += 1
        assert num_steps < 10_000, f"{len(simulation.live)} requests never end"
    assert sorted(simulation.finished) == list(range(1, NUM_REQUESTS + 1))
    cache = simulation.scheduler.cache
    cache.clear()
    assert cache.num_free == num_slots


@pytest.mark.parametrize("max_batch", [1, 4])
@pytest.mark.parametrize("num_slots", [60, 600])
def test_a_fan_out_ends_under_an_endless_stream_of_interactive_requests(num_slots, max_batch) -> None:
    simulation = Simulation(num_slots, max_batch, chunk=8, patience=10)
    rng = random.Random(0)
    low = [simulation.submit([n] * 20, "fan-out", 8) for n in range(4)]
    for _ in range(400):
        while len(simulation.scheduler.waiting) < 5:
            simulation.submit([rng.randrange(VOCAB) for _ in range(20)], "interactive", 4)
        simulation.step()
        if {request.id for request in low} <= set(simulation.finished):
            return
    raise AssertionError("the fan-out starves")


def test_a_request_waits_for_a_prefix_of_another_and_continues_alone_when_that_one_ends() -> None:
    simulation = Simulation(600, 4, chunk=8)
    trunk = list(range(40))
    first = simulation.submit([*trunk, 1], "interactive")
    second = simulation.submit([*trunk, 2], "interactive")
    third = simulation.submit([*trunk, 3], "interactive")
    for _ in range(2):
        assert [item.request for item in simulation.step()] == [first]
    simulation.end(first)
    assert [item.request for item in simulation.step()] == [second]
    assert second.usage().cached_tokens == 16
    simulation.step()
    simulation.step(fails=True)
    assert second.id in simulation.finished and third.lease is None
    simulation.step()
    assert third.usage().cached_tokens == 32


def test_an_interactive_request_among_eight_of_a_fan_out_has_its_first_token_in_the_next_step() -> None:
    simulation = Simulation(2000, 8, chunk=64)
    replies = [simulation.submit([n] * 30, "fan-out", 100) for n in range(8)]
    simulation.submit([9] * 400, "warm")
    for _ in range(10):
        simulation.step()
    assert all(reply.num_sampled for reply in replies)
    asked = simulation.submit([7] * 50, "interactive")
    served = {item.request for item in simulation.step()}
    assert asked.id in simulation.finished and served >= set(replies[:7])
