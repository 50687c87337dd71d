"""Exactness on the real default model: the same greedy tokens however the prompt's KV was made."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from treechat_engine import Engine, EngineConfig, SamplingParams

pytestmark = pytest.mark.model
GREEDY = SamplingParams(max_tokens=12, ignore_eos=True)
PROMPT = "The capital of France is Paris. The capital of Italy is Rome. The capital of Spain is"
OTHER = "The capital of France is Paris. The capital of Italy is not easy to name, because"


@pytest.fixture(scope="module")
def model(default_model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(default_model.path, dtype=torch.float32)


@pytest.fixture(scope="module")
def tokenizer(default_model):
    from treechat.models import load_tokenizer

    return load_tokenizer(default_model)


@pytest.fixture(scope="module")
def prompts(tokenizer) -> tuple[list[int], list[int]]:
    return tokenizer(PROMPT).input_ids, tokenizer(OTHER).input_ids


@pytest.fixture(scope="module")
def expected(model, prompts) -> list[tuple[int, ...]]:
    """Return the tokens of transformers' `generate`, before any engine changes the model."""
    return [
        tuple(
            model.generate(torch.tensor([ids]), max_new_tokens=12, min_new_tokens=12, do_sample=False)[0, len(ids) :]
            .tolist()
        )
        for ids in prompts
    ]  # fmt: skip


@pytest.fixture
def engine(model, expected) -> Iterator[Engine]:
    with Engine(model, EngineConfig(kv_tokens=256), poison=True) as opened:
        yield opened
        opened.cache.check()


@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_computed_in_chunks_reused_and_rebuilt_give_transformers_tokens(model, prompts, expected, chunk):
    prompt, other = prompts
    with Engine(model, EngineConfig(kv_tokens=64, prefill_chunk=chunk, self_check=False), poison=True) as engine:
        computed = engine.generate([prompt], GREEDY)[0]
        assert computed.usage.computed_tokens == len(prompt)
        reused = engine.generate([prompt], GREEDY)[0]
        assert reused.usage.computed_tokens == 0, "the logits of its end were kept"
        forked = engine.generate([other], GREEDY)[0]
        assert 0 < forked.usage.cached_tokens < len(prompt)
        engine.clear_cache()
        assert engine.residency(prompt).resident == 0
        rebuilt = engine.generate([prompt], GREEDY)[0]
        assert rebuilt.usage.computed_tokens == len(prompt)
        engine.cache.check()
    assert computed.token_ids == reused.token_ids == rebuilt.token_ids == expected[0]
    assert forked.token_ids == expected[1]


def test_a_batch_with_others_gives_the_same_tokens(engine, prompts, expected):
    prompt, other = prompts
    together = engine.generate([prompt, other, prompt[:5], other[:9]], GREEDY)
    assert [c.token_ids for c in together[:2]] == expected


def test_a_jump_back_to_a_computed_branch_computes_one_token(engine, prompts):
    a, b = ([*prompts[0], *branch] for branch in (range(1000, 1050), range(2000, 2050)))
    one = SamplingParams(max_tokens=1)
    engine.generate([a], one)
    engine.generate([b], one)
    again = engine.generate([[*a, 5, 6, 7]], one)[0].usage
    assert (again.cached_tokens, again.computed_tokens) == (len(a), 3)
