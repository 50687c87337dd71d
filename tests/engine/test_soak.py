"""Thousands of random operations from several threads on a small pool: nothing leaks and no token changes."""

from __future__ import annotations

import gc
import itertools
import os
import random
import threading
import tracemalloc
from pathlib import Path

import pytest

from treechat_engine import Engine, Finished, SamplingParams, Token

NUM_THREADS = 4
KV_TOKENS, HOST_TOKENS = 150, 100
# Tokens of a trunk and of a reply. Paths are made of few parts, so they often share prefixes.
TRUNK, REPLY = 24, 8
CUTS, TAILS = (1, 5, 11, 16, TRUNK, TRUNK), (0, 4, 9)
INJECTED = "injected by the test"


class Person:
    """One thread's random work: submit, stream, cancel, fork, jump, warm, look up and evict.

    Replies are compared with transformers.
    """

    def __init__(self, engine: Engine, seed: int, trunks: list[list[int]], expected) -> None:
        self.engine = engine
        self.rng = random.Random(seed)
        self.trunks = trunks
        self.expected = expected
        self.open = []
        self.warmed = []
        self.num_failed = 0
        self.num_done = 0
        self.wrong: BaseException | None = None

    def work(self, num_operations: int) -> None:
        try:
            for _ in range(num_operations):
                self.rng.choices(
                    [self.submit, self.read, self.cancel, self.siblings, self.warm, self.look, self.evict],
                    [30, 30, 8, 6, 8, 12, 1],
                )[0]()
                self.num_done += 1
            while self.open:
                self.read()
            while self.warmed:
                *_, finished = self.warmed.pop()
                assert finished.error is None or INJECTED in finished.error
        except BaseException as error:  # noqa: BLE001 - the main thread raises it again
            self.wrong = error

    def path(self) -> list[int]:
        """Return a trunk or its beginning, perhaps with the beginning of another, so paths fork inside cached ones."""
        trunk, other = self.rng.choice(self.trunks), self.rng.choice(self.trunks)
        return trunk[: self.rng.choice(CUTS)] + other[: self.rng.choice(TAILS)]

    def submit(self) -> None:
        while len(self.open) >= 3:
            self.read()
        params = SamplingParams(max_tokens=self.rng.randint(1, REPLY))
        ids = self.path()
        self.open.append((ids, params, self.engine.submit(ids, params, self.rng.choice(["interactive", "fan-out"]))))

    def siblings(self) -> None:
        ids, params = self.path(), SamplingParams(max_tokens=self.rng.randint(1, REPLY))
        self.open += [(ids, params, self.engine.submit(ids, params, "fan-out")) for _ in range(3)]

    def read(self) -> None:
        if self.open:
            ids, params, handle = self.open.pop(self.rng.randrange(len(self.open)))
            self.check(ids, params, list(handle), may_be_cut=False)

    def cancel(self) -> None:
        if self.open:
            ids, params, handle = self.open.pop(self.rng.randrange(len(self.open)))
            events = []
            stop_at = self.rng.randint(0, 3)
            if stop_at == 0:
                handle.cancel()
            for event in handle:
                events.append(event)
                if len(events) == stop_at:
                    handle.cancel()
            self.check(ids, params, events, may_be_cut=True)

    def warm(self) -> None:
        handle = self.engine.warm(self.path())
        self.warmed.append(handle)
        if self.rng.random() < 0.5:
            handle.cancel()

    def look(self) -> None:
        residency = self.engine.residency(ids := self.path())
        assert residency.total == len(ids)
        stats = self.engine.stats()
        assert stats.slots_free + stats.slots_cached <= stats.slots_total

    def evict(self) -> None:
        self.engine.clear_cache()

    def check(self, ids, params, events, may_be_cut) -> None:
        *tokens, finished = events
        assert isinstance(finished, Finished)
        if finished.reason == "error":
            assert INJECTED in (finished.error or ""), finished.error
            self.num_failed += 1
        elif not may_be_cut:
            assert (finished.reason, len(tokens)) == ("length", params.max_tokens)
        given = [token.id for token in tokens if isinstance(token, Token)]
        assert given == self.expected(ids)[: len(given)], "a token is not the one that transformers gives"
        usage = finished.usage
        if tokens:
            assert usage.cached_tokens + usage.restored_tokens + usage.computed_tokens == usage.prompt_tokens


def soak(engine: Engine, people: list[Person], num_operations: int) -> None:
    """Run all threads at once, while some steps of the engine raise."""
    runner, rng = engine.worker.runner, random.Random(0)
    step = runner.step

    def sometimes_raise(batch):
        if rng.random() < 0.005:
            raise rng.choice([RuntimeError(INJECTED), MemoryError(INJECTED)])
        return step(batch)

    runner.step = sometimes_raise
    threads = [threading.Thread(target=person.work, args=(num_operations // len(people),)) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runner.step = step
    for person in people:
        if person.wrong is not None:
            raise person.wrong


def resident_bytes() -> int:
    """Return the resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def settled(engine: Engine) -> None:
    """Assert that nothing runs and no slot or lock is lost."""
    engine.generate([[1]], SamplingParams(max_tokens=1))
    engine.clear_cache()
    engine.cache.check()
    stats = engine.stats()
    assert stats.running == stats.waiting == 0
    assert stats.slots_free == stats.slots_total, "a slot or a lock was not given back"


@pytest.mark.parametrize(
    "num_operations", [400, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the process's memory from /proc")
def test_random_operations_from_several_threads_leak_nothing_and_change_no_token(
    num_operations, engines, greedy, prompt
):
    engine = engines(kv_tokens=KV_TOKENS, host_tokens=HOST_TOKENS, max_batch=4, prefill_chunk=8)
    trunks = [prompt(TRUNK, seed=n) for n in range(3)]
    known: dict[tuple[int, ...], list[int]] = {}
    lock = threading.Lock()

    def expected(ids: list[int]) -> list[int]:
        with lock:
            if tuple(ids) not in known:
                known[tuple(ids)] = greedy("llama", ids, REPLY)
            return known[tuple(ids)]

    people = [Person(engine, seed, trunks, expected) for seed in range(NUM_THREADS)]
    # The first quarter fills every bounded store; memory must not grow after it.
    soak(engine, people, num_operations // 4)
    settled(engine)
    is_long = num_operations > 1000
    if is_long:
        for trunk, cut, other, tail in itertools.product(trunks, CUTS, trunks, TAILS):
            expected(trunk[:cut] + other[:tail])
    gc.collect()
    if is_long:
        # Only here, since tracing makes every step several times slower.
        tracemalloc.start()
    held, resident = tracemalloc.get_traced_memory()[0], resident_bytes()
    soak(engine, people, num_operations - num_operations // 4)
    settled(engine)
    gc.collect()
    growth = tracemalloc.get_traced_memory()[0] - held
    tracemalloc.stop()
    assert sum(person.num_done for person in people) >= num_operations - NUM_THREADS
    assert engine.stats().evicted_tokens > 0
    if is_long:
        assert sum(person.num_failed for person in people) > 0, "no step was made to fail"
        assert growth < 300_000, f"{growth:,} bytes more are held than before"
        assert resident_bytes() - resident < 40 << 20
