"""Which request runs next: chunks between decoding steps, priorities, waiting for a prefix, and no starvation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager

import pytest

from treechat_engine import Engine, SamplingParams, Token
from treechat_engine.attention.context import Work


@contextmanager
def steps(engine: Engine, before: Callable[[int], None] = lambda _: None):
    """Yield a list that records the engine's steps, each as (start, number of tokens) per request.

    `before(i)` is called on the engine's thread before the i-th step.
    """
    runner, seen = engine.worker.runner, []
    step = runner.step

    def record(batch: list[Work]):
        before(len(seen))
        seen.append([(work.start, len(work.ids)) for work in batch])
        return step(batch)

    runner.step = record
    try:
        yield seen
    finally:
        runner.step = step


@contextmanager
def held(engine: Engine):
    """Run nothing inside the block, so all requests submitted there arrive at once."""
    with engine.worker.lock:
        yield


def params(num_tokens: int, **options) -> SamplingParams:
    return SamplingParams(max_tokens=num_tokens, **options)


def test_a_running_stream_waits_for_no_more_than_a_chunk(engines, prompt):
    engine = engines(prefill_chunk=8)
    running = engine.submit(prompt(4), params(60))
    next(iter(running))
    with steps(engine) as seen:
        long = engine.submit(prompt(64, seed=1), params(1))
        long.result()
        running.result()
    during = [step for step in seen if any(num > 1 for _, num in step)]
    assert len(during) == 8
    for step in during:
        assert sum(num for _, num in step) <= 8 + 1
        assert any(num == 1 for _, num in step), "the running stream had no part in a step"


def test_a_prompt_of_higher_priority_is_computed_before_the_rest_of_a_running_one(engines, prompt, greedy):
    engine = engines(prefill_chunk=8)
    late = []

    def submit_in_the_third_step(i):
        if i == 2:
            late.append(engine.submit(prompt(24), params(3)))

    with steps(engine, submit_in_the_third_step) as seen:
        low = engine.submit(prompt(48, seed=1), params(2), "fan-out").result()
    assert [step[0] for step in seen[:6]] == [(0, 8), (8, 8), (16, 8), (0, 8), (8, 8), (16, 8)]
    assert list(late[0].result().token_ids) == greedy("llama", prompt(24), 3)
    assert list(low.token_ids) == greedy("llama", prompt(48, seed=1), 2)
    assert low.usage.computed_tokens == 48


def test_a_place_in_the_batch_goes_to_the_higher_priority_and_the_loser_keeps_its_prefix(engines, prompt, greedy):
    engine = engines(max_batch=2, prefill_chunk=64)
    with held(engine):
        losers = [engine.submit(prompt(20, seed=n), params(30), "fan-out") for n in (1, 2)]
        asked = engine.submit(prompt(20), params(12))
    order = []
    threads = [
        threading.Thread(target=lambda name, handle: (handle.result(), order.append(name)), args=item)
        for item in (("asked", asked), ("first", losers[0]))
    ]
    with steps(engine) as seen:
        for thread in threads:
            thread.start()
        done = losers[1].result()
        for thread in threads:
            thread.join()
    assert order[0] == "asked"
    assert list(done.token_ids) == greedy("llama", prompt(20, seed=2), 30)
    assert sum(num for step in seen for _, num in step) <= 3 * 20 + 72 + 4, "more than a few tokens were computed twice"


def test_a_prompt_being_computed_at_lower_priority_is_not_computed_twice(engines, prompt):
    engine = engines(prefill_chunk=8)
    late = []

    def submit_in_the_second_step(i):
        if i == 1:
            late.append(engine.submit(prompt(48), params(1, temperature=1.0)))

    with steps(engine, submit_in_the_second_step) as seen:
        low = engine.submit([*prompt(48), *prompt(4, seed=2)], params(1), "fan-out").result()
        usage = late[0].result().usage
    assert (usage.cached_tokens, usage.computed_tokens) == (16, 32)
    assert low.usage.prompt_tokens == 52
    assert sum(num for step in seen for _, num in step) == 52


def test_requests_of_one_priority_run_in_the_order_of_their_arrival(engines, prompt):
    engine = engines(prefill_chunk=8, max_batch=4)
    with held(engine):
        handles = [engine.submit(prompt(16, seed=n), params(1)) for n in range(4)]
    waits = [handle.result().usage.ttft_s for handle in handles]
    assert waits == sorted(waits)


@pytest.mark.parametrize("slots", [600, 60])
def test_a_low_priority_request_does_not_starve_under_a_stream_of_higher_ones(slots, engines, prompt, greedy):
    """New interactive requests arrive until the other request is done, which must still get its turn."""
    engine = engines(max_batch=1, kv_tokens=slots)
    engine.worker.scheduler.patience = 10
    with held(engine):
        asked = [engine.submit(prompt(20, seed=100), params(4))]
        low = engine.submit(prompt(20), params(8), "fan-out")
    done = []
    waiter = threading.Thread(target=lambda: done.append(low.result()))
    waiter.start()
    while waiter.is_alive() and len(asked) < 200:
        asked.append(engine.submit(prompt(20, seed=100 + len(asked)), params(4)))
        asked[-2].result()
    assert len(asked) < 200, "the request of low priority never ran"
    waiter.join()
    assert list(done[0].token_ids) == greedy("llama", prompt(20), 8)
    for handle in asked:
        handle.cancel()


def test_a_long_prompt_does_not_starve_among_short_ones_of_its_priority(engines, prompt):
    engine = engines(prefill_chunk=8, max_batch=2)
    long = engine.submit(prompt(200), params(1))
    done = []
    waiter = threading.Thread(target=lambda: done.append(long.result()))
    waiter.start()
    num_short = 0
    while waiter.is_alive():
        num_short += 1
        engine.submit(prompt(8, seed=num_short), params(1)).result()
    waiter.join()
    assert num_short < 60
    assert done[0].usage.computed_tokens == 200


@pytest.mark.parametrize("size", [0.1, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("arrival", ["at once", "one by one"])
@pytest.mark.parametrize("start", ["cold", "warm"])
def test_five_agents_on_one_prompt_hold_it_once(size, start, arrival, engines, prompt):
    """The reference case of fan-out: 4,000 shared tokens of rules, 2,000 of source, 200 own tokens per agent.

    It needs 6,000 + 5 x 200 slots, not 5 x 6,200, so a pool of that size evicts nothing.
    """
    num_shared, num_own = int(6000 * size), int(200 * size)
    shared = prompt(int(4000 * size)) + prompt(int(2000 * size), seed=1)
    engine = engines(kv_tokens=num_shared + 5 * num_own, prefill_chunk=int(640 * size), max_batch=5)
    engine.max_model_len = 10_000
    engine.worker.checks_cache = size < 1
    if start == "warm":
        engine.warm(shared).result()
    asked = [params(num_own, temperature=1.0, seed=n) for n in range(5)]
    with steps(engine) as seen:
        if arrival == "at once":
            with held(engine):
                handles = [engine.submit(shared, each, "fan-out") for each in asked]
        else:
            handles = []
            for each in asked:
                handles.append(engine.submit(shared, each, "fan-out"))
                next(iter(handles[-1]))
        events = [list(handle) for handle in handles]
    finished = [each[-1] for each in events]
    assert all(len(each.token_ids) == num_own for each in finished)
    assert len({each.token_ids for each in finished}) == 5
    computed = [each.usage.computed_tokens for each in finished]
    assert computed == [1 if start == "warm" else num_shared, 0, 0, 0, 0]
    stats = engine.stats()
    assert stats.evicted_tokens == 0
    assert stats.slots_cached <= num_shared + 5 * (num_own - 1)
    num_computed = sum(num for step in seen for _, num in step)
    assert num_computed == computed[0] + 5 * (num_own - 1)


def test_a_finished_turn_is_regenerated_without_a_forward_for_its_first_token(engines, prompt, greedy):
    engine = engines()
    ids = prompt(30)
    engine.generate([ids], params(5))
    with steps(engine) as seen:
        again = engine.generate([ids] * 4, [params(1), params(1, temperature=1.0, seed=1), params(2), params(1)])
    assert [list(each.token_ids) for each in (again[0], again[2])] == [greedy("llama", ids, n) for n in (1, 2)]
    assert seen == [[(30, 1)]], "only the second token of the third reply needed a forward"
    assert [each.usage.cached_tokens for each in again] == [30] * 4


def test_end_logits_are_not_used_if_the_kv_of_the_prompt_is_gone(engines, prompt, greedy):
    engine = engines()
    engine.generate([prompt(30)], params(5))
    engine.clear_cache()
    (done,) = engine.generate([prompt(30)], params(5))
    assert done.usage.computed_tokens == 30
    assert list(done.token_ids) == greedy("llama", prompt(30), 5)


def test_end_logits_are_bounded_and_the_least_recently_used_are_dropped_first():
    import torch

    from treechat_engine.kvcache.end_logits import EndLogits, prompt_key

    end_logits = EndLogits(max_entries=3, max_bytes=1000)
    row = torch.zeros(50)
    keys = [prompt_key([1, 2, n]) for n in range(4)]
    for key in keys[:3]:
        end_logits.put(key, row)
    assert end_logits.get(keys[0]) is not None
    end_logits.put(keys[3], row)
    assert [key in end_logits for key in keys] == [True, False, True, True]
    end_logits.put(keys[1], torch.zeros(200))
    assert [key in end_logits for key in keys] == [False, True, False, True]
    end_logits.put(keys[0], torch.zeros(300))
    assert len(end_logits) == 0, "logits above the bound are not kept"


def test_a_reply_in_a_batch_of_others_is_the_reply_alone(engines, prompt):
    """Seeds, cuts and penalties differ in the batch; each request gives the tokens that it gives alone."""
    engine = engines(prefill_chunk=16)
    options = [
        {"temperature": 1.0},
        {"temperature": 0.7, "top_k": 40, "top_p": 0.9},
        {"temperature": 1.2, "min_p": 0.02, "repetition_penalty": 1.3},
        {"frequency_penalty": 0.8, "logit_bias": {5: 3.0}},
        {},
    ]
    asked = [params(15, seed=n, **each) for n, each in enumerate(options)]
    prompts = [prompt(10 + 7 * n, seed=n) for n in range(5)]
    alone = [engine.generate([ids], each)[0].token_ids for ids, each in zip(prompts, asked, strict=True)]
    engine.clear_cache()
    assert [each.token_ids for each in engine.generate(prompts, asked)] == alone


async def test_a_stream_closed_before_it_was_read_cancels_its_request(engines, prompt):
    engine = engines()
    stream = engine.stream(prompt(20), params(400))
    request = stream.handle.request
    await stream.aclose()
    assert request.is_cancelled
    dropped = engine.stream(prompt(20), params(400))
    request = dropped.handle.request
    del dropped
    assert request.is_cancelled
    group = engine.fan_out(prompt(20), [params(400), params(3)])
    await group.streams[0].aclose()
    assert [isinstance(event, Token) for event in [event async for event in group.streams[1]]] == [True] * 3 + [False]
    with pytest.raises(StopAsyncIteration):
        await anext(group.streams[0])
