"""Many requests at once in a small pool, cancelled at random: the tokens of all replies are exact."""

from __future__ import annotations

import random

import pytest

from treechat_engine import SamplingParams, Token


@pytest.mark.parametrize("seed", range(4))
def test_random_requests_in_a_small_pool_lose_no_slot_and_change_no_token(seed, engines, greedy, prompt):
    rng = random.Random(seed)
    engine = engines(kv_tokens=90, prefill_chunk=rng.choice([5, 16]), max_batch=3)
    trunks = [prompt(20, seed=n) for n in range(2)]
    handles = []
    for i in range(14):
        ids = rng.choice(trunks)[: rng.randint(1, 20)] + prompt(rng.randint(1, 15), seed=100 + rng.randint(0, 4))
        num_tokens = rng.randint(1, 25)
        if rng.random() < 0.2:
            engine.warm(ids)
            continue
        priority = rng.choice(["interactive", "fan-out"])
        handle = engine.submit(ids, SamplingParams(max_tokens=num_tokens), priority)
        cancel_after = rng.randint(0, num_tokens) if rng.random() < 0.3 else None
        handles.append((ids, num_tokens, handle, cancel_after))
        if i % 5 == 4:
            read(*handles.pop(rng.randrange(len(handles))), greedy)
    for item in handles:
        read(*item, greedy)


def read(ids, num_tokens, handle, cancel_after, greedy):
    """Read a request to its end, cancel it after `cancel_after` events, and compare its tokens."""
    if cancel_after == 0:
        handle.cancel()
    events = []
    for event in handle:
        events.append(event)
        if len(events) == cancel_after:
            handle.cancel()
    *tokens, finished = events
    assert finished.error is None
    assert finished.reason in (("length",) if cancel_after is None else ("length", "cancelled"))
    expected = greedy("llama", ids, num_tokens)
    assert [token.id for token in tokens if isinstance(token, Token)] == expected[: len(tokens)]
    if finished.reason == "length":
        assert len(tokens) == num_tokens
        usage = finished.usage
        assert usage.cached_tokens + usage.restored_tokens + usage.computed_tokens == len(ids)
