"""The engine through its public interface: events, cancelling, failures, waiting and counts."""

from __future__ import annotations

import asyncio
import threading

import pytest
import torch

from treechat_engine import (
    Engine,
    EngineClosedError,
    Finished,
    PromptTooLongError,
    RequestFailedError,
    SamplingParams,
    Token,
)


async def collect(stream):
    events = [event async for event in stream]
    assert isinstance(events[-1], Finished)
    assert [event.id for event in events[:-1]] == list(events[-1].token_ids)
    return events[-1]


def hold(engine: Engine):
    """Stop the engine's thread at the start of its next forward. Return the events (reached, go_on)."""
    reached, go_on = threading.Event(), threading.Event()

    def wait(*_):
        reached.set()
        assert go_on.wait(30)

    handle = engine.model.register_forward_pre_hook(lambda *args: (handle.remove(), wait())[1])
    return reached, go_on


async def test_a_stream_gives_each_token_and_then_the_end(engines, greedy, prompt):
    ids = prompt(20)
    params = SamplingParams(max_tokens=5, top_logprobs=3)
    events = [event async for event in engines().stream(ids, params)]
    *tokens, finished = events
    assert [token.id for token in tokens] == greedy("llama", ids, 5) == list(finished.token_ids)
    assert finished.reason == "length"
    usage = finished.usage
    assert (usage.prompt_tokens, usage.cached_tokens, usage.computed_tokens, usage.completion_tokens) == (20, 0, 20, 5)
    assert 0 <= usage.queue_s <= usage.ttft_s <= usage.total_s
    for token in tokens:
        assert isinstance(token, Token)
        assert token.top[0] == (token.id, pytest.approx(token.logprob, abs=1e-5))
        assert len(token.top) == 3


async def test_closing_a_stream_cancels_it_and_keeps_what_was_computed(engines, prompt):
    engine = engines()
    ids = prompt(30)
    stream = engine.stream(ids, SamplingParams(max_tokens=400))
    assert isinstance(await anext(stream), Token)
    await stream.aclose()
    (done,) = await asyncio.to_thread(engine.generate, [ids], SamplingParams(max_tokens=1))
    assert (done.usage.cached_tokens, done.usage.computed_tokens) == (30, 0), "the logits of its end were kept"
    assert engine.stats().running == 0


@pytest.mark.parametrize("num_events", [0, 1, 2, 7])
def test_a_request_can_be_cancelled_at_any_step(num_events, engines, prompt):
    engine = engines(prefill_chunk=8)
    ids = prompt(40)
    handle = engine.submit(ids, SamplingParams(max_tokens=500))
    other = engine.submit(prompt(10, seed=1), SamplingParams(max_tokens=20))
    events = iter(handle)
    for _ in range(num_events):
        assert isinstance(next(events), Token)
    handle.cancel()
    *_, last = events
    assert last.reason == "cancelled"
    assert other.result().finish_reason == "length"
    engine.cache.check()


def test_a_request_cancelled_in_its_prefill_keeps_the_computed_chunks(engines, prompt):
    engine = engines(prefill_chunk=8)
    ids = prompt(40)
    reached, go_on = hold(engine)
    handle = engine.submit(ids)
    assert reached.wait(30)
    handle.cancel()
    go_on.set()
    (finished,) = handle
    assert finished.reason == "cancelled"
    assert engine.residency(ids).resident == 8


def test_residency_does_not_wait_for_a_step(engines, prompt):
    engine = engines()
    reached, go_on = hold(engine)
    handle = engine.submit(prompt(20), SamplingParams(max_tokens=2))
    assert reached.wait(30)
    try:
        assert engine.residency(prompt(20)).cold == 20
        assert engine.stats().running == 1
    finally:
        go_on.set()
    handle.result()
    assert engine.residency(prompt(20)).resident == 20
    assert [each.resident for each in engine.residencies([prompt(20), prompt(5, seed=9)])] == [20, 0]


def test_a_step_that_raises_fails_its_requests_and_the_engine_continues(engines, greedy, prompt):
    engine = engines(prefill_chunk=16)
    ids = prompt(40)
    calls = []

    def fail_once(*_):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("boom")

    hook = engine.model.model.layers[1].register_forward_pre_hook(fail_once)
    with pytest.raises(RequestFailedError, match="boom"):
        engine.generate([ids], SamplingParams(max_tokens=5))
    hook.remove()
    engine.cache.check()
    assert engine.residency(ids).resident == 16, "the chunk before the failure stays"
    (done,) = engine.generate([ids], SamplingParams(max_tokens=5))
    assert list(done.token_ids) == greedy("llama", ids, 5)


def test_a_step_out_of_memory_is_tried_again_with_fewer_tokens(engines, greedy, prompt):
    engine = engines()
    sizes = []

    def run_out_once(_module, _args, kwargs):
        sizes.append(kwargs["input_ids"].shape[1])
        if len(sizes) == 1:
            raise torch.OutOfMemoryError("no memory left")

    engine.model.register_forward_pre_hook(run_out_once, with_kwargs=True)
    (done,) = engine.generate([prompt(40)], SamplingParams(max_tokens=4))
    assert list(done.token_ids) == greedy("llama", prompt(40), 4)
    assert sizes[:3] == [40, 20, 20]


def test_a_prompt_that_cannot_fit_is_refused_before_it_starts(engines, prompt):
    engine = engines(kv_tokens=50)
    with pytest.raises(PromptTooLongError, match="51 tokens"):
        engine.submit(prompt(51))
    (done,) = engine.generate([prompt(50)])
    assert len(done.token_ids) == 1, "the last sampled token needs no slot"
    engine = engines(max_model_len=30)
    with pytest.raises(PromptTooLongError):
        engine.submit(prompt(30))
    (done,) = engine.generate([prompt(20)])
    assert (len(done.token_ids), done.finish_reason) == (10, "length")


def test_a_prompt_of_no_tokens_or_of_no_known_tokens_is_refused(engines):
    engine = engines()
    for ids in ([], [-1], [320]):
        with pytest.raises(ValueError, match="token"):
            engine.submit(ids)


def test_requests_that_do_not_fit_together_wait_for_each_other(engines, greedy, prompt):
    engine = engines(kv_tokens=70, prefill_chunk=16, max_batch=4)
    prompts = [prompt(30, seed=n) for n in range(4)]
    done = engine.generate(prompts, SamplingParams(max_tokens=25))
    assert [list(each.token_ids) for each in done] == [greedy("llama", ids, 25) for ids in prompts]
    assert all(u.cached_tokens + u.restored_tokens + u.computed_tokens == 30 for u in (each.usage for each in done))


async def test_siblings_share_one_prefill_and_the_slots_of_their_prefix(engines, greedy, prompt):
    engine = engines(prefill_chunk=16)
    ids = prompt(40)
    params = [SamplingParams(max_tokens=6, temperature=0.0 if i == 0 else 1.0, seed=i) for i in range(4)]
    group = engine.fan_out(ids, params)
    finished = await asyncio.gather(*map(collect, group.streams))
    assert list(finished[0].token_ids) == greedy("llama", ids, 6)
    assert len({each.token_ids for each in finished}) > 1
    usages = [(each.usage.cached_tokens, each.usage.computed_tokens) for each in finished]
    assert usages == [(0, 40), (40, 0), (40, 0), (40, 0)], "siblings start from the first one's logits"
    assert engine.stats().slots_cached <= 40 + 4 * 5


async def test_one_sibling_can_be_cancelled_alone(engines, prompt):
    group = engines().fan_out(prompt(20), [SamplingParams(max_tokens=300), SamplingParams(max_tokens=8)])
    assert isinstance(await anext(group.streams[0]), Token)
    group.cancel(0)
    finished = await asyncio.gather(*map(collect_rest, group.streams))
    assert [each.reason for each in finished] == ["cancelled", "length"]


async def collect_rest(stream):
    return [event async for event in stream][-1]


def test_a_request_waits_for_a_prefix_that_is_being_computed(engines, prompt):
    engine = engines(prefill_chunk=8)
    trunk = prompt(60)
    handles = [engine.submit(trunk + prompt(4, seed=n), SamplingParams(max_tokens=2)) for n in (1, 2)]
    usages = [handle.result().usage for handle in handles]
    assert [usage.computed_tokens for usage in usages] == [64, 4]


def test_interactive_requests_run_before_warm_ones_which_lose_nothing(engines, prompt):
    engine = engines(prefill_chunk=8)
    reached, go_on = hold(engine)
    warm = engine.warm(prompt(40, seed=1))
    assert reached.wait(30)
    order = []
    hook = engine.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: order.append(kwargs["position_ids"][0, 0].item()), with_kwargs=True
    )
    asked = engine.submit(prompt(16), SamplingParams(max_tokens=3))
    go_on.set()
    asked.result()
    assert warm.result().finish_reason == "length"
    hook.remove()
    assert order == [0, 8, 16, 17, 8, 16, 24, 32]
    assert engine.residency(prompt(40, seed=1)).resident == 40


def test_warming_evicts_nothing_recently_used_and_does_nothing_twice(engines, prompt):
    engine = engines(kv_tokens=60)
    engine.generate([prompt(40)], SamplingParams(max_tokens=1))
    engine.warm(prompt(40, seed=1)).result()
    assert engine.residency(prompt(40)).resident == 40
    assert engine.stats().evicted_tokens == 0
    usage = engine.warm(prompt(40)).result().usage
    assert (usage.cached_tokens, usage.computed_tokens) == (39, 0)


def test_warming_in_a_full_pool_replaces_only_kv_that_the_policy_ranks_lower(engines, prompt):
    engine = engines(kv_tokens=60)
    old, current, wanted = prompt(20), prompt(20, seed=1), prompt(30, seed=2)
    engine.generate([old], SamplingParams(max_tokens=1))
    for _ in range(60):
        engine.generate([current], SamplingParams(max_tokens=1))
    engine.protect([current, wanted])
    engine.warm(wanted).result()
    assert engine.residency(wanted).resident == 30
    assert engine.residency(current).resident == 20
    assert engine.residency(old).resident < 20
    engine.warm(prompt(60, seed=3)).result()
    assert engine.residency(current).resident == 20 and engine.residency(wanted).resident == 30


def test_stop_tokens_end_a_reply_and_are_part_of_it(engines, greedy, prompt):
    engine = engines()
    reference = greedy("llama", prompt(20), 10)
    stop_id = reference[4]
    num_tokens = reference.index(stop_id) + 1
    (done,) = engine.generate([prompt(20)], SamplingParams(max_tokens=10, stop_token_ids=(stop_id,)))
    assert (done.finish_reason, list(done.token_ids)) == ("stop", reference[:num_tokens])
    params = SamplingParams(max_tokens=10, stop_token_ids=(stop_id,), ignore_eos=True)
    (done,) = engine.generate([prompt(20)], params)
    assert (done.finish_reason, list(done.token_ids)) == ("length", reference)


def test_a_seed_gives_the_same_reply_alone_and_in_any_batch(engines, prompt):
    engine = engines()
    params = SamplingParams(max_tokens=12, temperature=1.0, top_p=0.9, seed=11)
    (alone,) = engine.generate([prompt(20)], params)
    others = [prompt(n, seed=n) for n in (7, 30)]
    together = engine.generate([others[0], prompt(20), others[1]], [SamplingParams(max_tokens=15), params, params])
    assert together[1].token_ids == alone.token_ids
    assert (alone.seed, together[1].seed) == (11, 11)
    unseeded = [engine.generate([prompt(20)], SamplingParams(max_tokens=12, temperature=1.0))[0] for _ in range(2)]
    assert unseeded[0].token_ids != unseeded[1].token_ids
    again = SamplingParams(max_tokens=12, temperature=1.0, seed=unseeded[0].seed)
    assert engine.generate([prompt(20)], again)[0].token_ids == unseeded[0].token_ids


def test_a_closed_engine_cancels_running_requests_and_accepts_no_more(engines, prompt):
    engine = engines()
    handle = engine.submit(prompt(20), SamplingParams(max_tokens=480))
    next(iter(handle))
    engine.close()
    *_, last = handle
    assert last.reason == "cancelled"
    with pytest.raises(EngineClosedError):
        engine.submit(prompt(20))
    assert engine.model.config._attn_implementation != "treechat"
