"""`EngineConfig.deterministic`: a reply has the same bits whatever runs at the same time and wherever its slots lie."""

from __future__ import annotations

import random

import pytest

from treechat_engine import Engine, EngineConfig, SamplingParams

SAMPLED = SamplingParams(max_tokens=12, temperature=0.9, top_p=0.95, seed=5, top_logprobs=3)


@pytest.fixture
def deterministic(models):
    """Return deterministic(family, forward) -> an engine with chunks of 16 tokens."""
    started = []

    def start(family, forward):
        config = EngineConfig(kv_tokens=600, prefill_chunk=16, forward=forward, deterministic=True)
        engine = Engine(models(family), config, poison=True)
        started.append(engine)
        return engine

    yield start
    for engine in started:
        engine.close()


@pytest.mark.parametrize(
    ("family", "forward"),
    [
        ("llama", "fused"),
        ("llama", "transformers"),
        ("mistral-window", "auto"),
        ("gemma2-softcap-window", "auto"),
        ("gpt-oss-sinks", "auto"),
    ],
)
def test_a_reply_has_the_same_bits_alone_and_among_others(deterministic, prompt, family, forward):
    ids = prompt(50)
    with deterministic(family, forward) as engine:
        (alone,) = engine.generate([ids], SAMPLED)
    chance = random.Random(0)
    with deterministic(family, forward) as engine:
        # Slots are allocated and freed in small extents; other requests start before, with and after this one.
        engine.generate([prompt(chance.randrange(3, 40), seed=n) for n in range(10)], SamplingParams(max_tokens=3))
        engine.clear_cache()
        neighbours = [engine.submit(prompt(30 + n, seed=20 + n), SamplingParams(max_tokens=20)) for n in range(3)]
        handle = engine.submit(ids, SAMPLED)
        neighbours += [engine.submit(prompt(21, seed=30 + n), SamplingParams(max_tokens=9)) for n in range(2)]
        among = handle.result()
        for each in neighbours:
            each.result()
    assert among.token_ids == alone.token_ids
    assert among.logprobs == alone.logprobs
    assert among.top == alone.top


def test_a_cached_prompt_gives_the_same_reply_again(deterministic, prompt):
    ids = prompt(50)
    with deterministic("llama", "auto") as engine:
        (first,) = engine.generate([ids], SAMPLED)
        again, sibling = engine.generate([ids, ids], SAMPLED)
        assert again.usage.computed_tokens == 0
        engine.worker.scheduler.end_logits.clear()
        (without_logits,) = engine.generate([ids], SAMPLED)
        assert without_logits.usage.computed_tokens == 1
    for other in (again, sibling, without_logits):
        assert (other.token_ids, other.logprobs) == (first.token_ids, first.logprobs)


def test_chunks_are_complete_whatever_shares_the_step(deterministic, prompt, monkeypatch):
    with deterministic("llama", "auto") as engine:
        steps = []
        plan = engine.worker.scheduler.plan

        def noted():
            planned = plan()
            steps.append([(item.request.id, item.num_tokens) for item in planned])
            return planned

        monkeypatch.setattr(engine.worker.scheduler, "plan", noted)
        engine.generate([prompt(40, seed=n) for n in range(3)], SamplingParams(max_tokens=2))
    for request_id in {request_id for step in steps for request_id, _ in step}:
        assert [n for step in steps for r, n in step if r == request_id] == [16, 16, 7, 1, 1]
