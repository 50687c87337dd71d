"""Any exception anywhere: the affected requests fail with its text, all slots are freed, and the engine continues.

The fixture `engines` checks at the end that no slot is missing. Free slots hold NaN.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager

import pytest
import torch

from treechat_engine import Engine, Finished, RequestFailedError, SamplingParams, Token, request_sampling

GREEDY = SamplingParams(max_tokens=6)


@contextmanager
def raising(owner: object, name: str, error: BaseException, calls: range):
    """Let `owner.name` raise `error` in the calls whose numbers are in `calls`.

    Yields the list of the arguments of the calls so far.
    """
    original, seen = getattr(owner, name), []

    def call(*args, **kwargs):
        seen.append(args)
        if len(seen) - 1 in calls:
            raise error
        return original(*args, **kwargs)

    setattr(owner, name, call)
    try:
        yield seen
    finally:
        setattr(owner, name, original)


def assert_works(engine: Engine, greedy, ids) -> None:
    """Assert that after a failure nothing runs, the cache is consistent and the next reply is right."""
    (done,) = engine.generate([ids], GREEDY)
    assert list(done.token_ids) == greedy("llama", ids, 6)
    stats = engine.stats()
    assert stats.running == stats.waiting == 0
    engine.cache.check()


PLACES = {
    "forward": lambda engine: (engine.worker.runner, "step"),
    "sampling": lambda engine: (request_sampling, "sample"),
    "lease": lambda engine: (engine.cache, "lease"),
    "grow": lambda engine: (engine.cache, "grow"),
    "commit": lambda engine: (engine.cache, "commit"),
    "prefix lookup": lambda engine: (engine.cache, "peek"),
}


@pytest.mark.parametrize("call", [0, 1])
@pytest.mark.parametrize("error", [RuntimeError("boom"), AssertionError("boom"), KeyError("boom")], ids=repr)
@pytest.mark.parametrize("place", PLACES)
def test_an_exception_anywhere_fails_its_requests_and_the_engine_continues(place, error, call, engines, greedy, prompt):
    engine = engines(prefill_chunk=16)
    ids = prompt(40)
    with engine.worker.lock:
        context = raising(*PLACES[place](engine), error, range(call, call + 1))
        seen = context.__enter__()
        handles = [engine.submit([*ids, n], GREEDY) for n in range(3)]
    events = [list(handle) for handle in handles]
    context.__exit__(None, None, None)
    assert len(seen) > call, "nothing was injected"
    errors = [each[-1].error for each in events if each[-1].reason == "error"]
    assert all("boom" in each and type(error).__name__ in each for each in errors)
    # If the commit at the end of a complete reply fails, only the cached KV is lost.
    assert errors or place in ("commit", "prefix lookup")
    for n, each in enumerate(events):
        tokens = [event.id for event in each if isinstance(event, Token)]
        assert tokens == greedy("llama", [*ids, n], 6)[: len(tokens)]
        assert each[-1].reason == "error" or len(tokens) == 6
    assert_works(engine, greedy, ids)


def test_a_request_that_fails_to_start_fails_no_other(engines, greedy, prompt):
    engine = engines()
    running = engine.submit(prompt(20, seed=1), SamplingParams(max_tokens=40))
    events = iter(running)
    assert isinstance(next(events), Token)
    with raising(engine.cache, "lease", RuntimeError("boom"), range(1)) as seen:
        (finished,) = engine.submit(prompt(30), GREEDY)
    assert len(seen) == 1
    assert (finished.reason, finished.error) == ("error", "RuntimeError: boom")
    assert list(events)[-1].reason == "length"
    assert_works(engine, greedy, prompt(30))


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_once_makes_the_step_smaller_and_fails_no_request(error, engines, greedy, prompt):
    engine = engines(prefill_chunk=32)
    with raising(engine.worker.runner, "step", error, range(1)) as seen:
        (done,) = engine.generate([prompt(30)], GREEDY)
    assert list(done.token_ids) == greedy("llama", prompt(30), 6)
    assert [len(batch[0].ids) for (batch,) in seen[:3]] == [30, 15, 15]
    assert len(engine.worker.scheduler.end_logits) == 1


def test_out_of_memory_while_decoding_runs_half_of_the_requests_and_then_the_rest(engines, greedy, prompt):
    engine = engines()
    with engine.worker.lock:
        handles = [engine.submit(prompt(10, seed=n), SamplingParams(max_tokens=10)) for n in range(4)]
        # Step 0 prefills all four requests; step 3 decodes all four.
        context = raising(engine.worker.runner, "step", torch.OutOfMemoryError("none left"), range(3, 4))
        seen = context.__enter__()
    done = [handle.result() for handle in handles]
    context.__exit__(None, None, None)
    assert [list(each.token_ids) for each in done] == [greedy("llama", prompt(10, seed=n), 10) for n in range(4)]
    assert [len(batch) for (batch,) in seen[2:6]] == [4, 4, 2, 4]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_repeated_out_of_memory_fails_with_its_name(error, engines, greedy, prompt):
    engine = engines()
    with (
        raising(engine.worker.runner, "step", error, range(100)),
        pytest.raises(RequestFailedError, match=type(error).__name__),
    ):
        engine.generate([prompt(30)], GREEDY)
    assert_works(engine, greedy, prompt(30))


def test_logits_of_nan_fail_their_request_and_no_other(engines, greedy, prompt):
    engine = engines()
    runner = engine.worker.runner
    step = runner.step

    def spoil(batch):
        logits = step(batch)
        return logits.index_fill(0, torch.tensor([0]), float("nan")) if len(batch) == 2 else logits

    runner.step = spoil
    with engine.worker.lock:
        first, second = (engine.submit(prompt(10, seed=n), GREEDY) for n in range(2))
    with pytest.raises(RequestFailedError, match="not numbers"):
        first.result()
    assert list(second.result().token_ids) == greedy("llama", prompt(10, seed=1), 6)
    runner.step = step
    assert_works(engine, greedy, prompt(30))


def test_kv_of_nan_fails_the_request_that_reads_it_and_is_computed_again_by_the_next(engines, greedy, prompt):
    engine, ids = engines(), prompt(30)
    tree = engine.cache.tree
    for asked in ([*ids, 7], ids):
        assert_works(engine, greedy, ids)
        with engine.worker.lock:
            engine.cache.pool.v[0][tree.slots_of(tree.node_at(ids))[3]] = float("nan")
        with pytest.raises(RequestFailedError, match="not numbers"):
            engine.generate([asked], GREEDY)
    assert_works(engine, greedy, ids)


def test_a_listener_that_raises_ends_its_own_request(engines, greedy, prompt):
    engine = engines()
    handle = engine.submit(prompt(10), SamplingParams(max_tokens=200))
    other = engine.submit(prompt(12, seed=1), GREEDY)
    with engine.worker.lock:
        handle.request.sink = lambda event: 1 / 0
    assert list(other.result().token_ids) == greedy("llama", prompt(12, seed=1), 6)
    assert_works(engine, greedy, prompt(10))
    assert handle.request.is_finished


def test_an_event_loop_that_closed_ends_the_requests_of_its_streams(engines, greedy, prompt):
    engine = engines()
    begun = threading.Event()

    async def leave_behind():
        streams = [engine.stream(prompt(10), SamplingParams(max_tokens=400)) for _ in range(2)]
        await anext(streams[0])
        begun.set()
        return streams

    loop = asyncio.new_event_loop()
    streams = loop.run_until_complete(leave_behind())
    loop.close()
    assert_works(engine, greedy, prompt(12))
    assert all(stream.handle.request.is_finished for stream in streams)


@pytest.mark.parametrize("num_read", [0, 3])
async def test_a_cancelled_task_ends_its_request(num_read, engines, greedy, prompt):
    engine = engines()
    arrived = asyncio.Event()
    stream = engine.stream(prompt(10), SamplingParams(max_tokens=400))

    async def read():
        num = 0
        while True:
            if num == num_read:
                arrived.set()
            await anext(stream)
            num += 1

    task = asyncio.create_task(read())
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(assert_works, engine, greedy, prompt(12))
    assert stream.handle.request.is_finished


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_ends_every_request_with_an_error(models, prompt):
    engine = Engine(models("llama"))
    with raising(engine.worker.runner, "step", SystemExit(), range(1)):
        handle = engine.submit(prompt(10))
        (finished,) = handle
    assert isinstance(finished, Finished)
    assert finished.error == "the engine's thread died"
    engine.close()
