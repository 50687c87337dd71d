"""Families with full or sliding attention give transformers' tokens; the others are refused with the reason."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers

from tests.engine.families import SUPPORTED, build, config_of
from tests.engine.prompt_walk import prompt, reference, start, walk
from tests.engine.refused_families import EXACT_IN_SOME, REFUSED, REFUSED_CONFIGS
from treechat_engine import Engine, EngineConfig, SamplingParams, UnsupportedModelError
from treechat_engine.model.support import check_config


@pytest.mark.parametrize("name", SUPPORTED)
def test_tokens_are_those_of_transformers_through_fork_jump_batch_eviction_and_rebuild(name):
    model = build(SUPPORTED[name])
    expect = reference(copy.deepcopy(model))
    with start(model) as engine:
        for step in walk(engine, expect):
            assert not step.wrong, f"{step.name}: {step.wrong}"


@pytest.mark.parametrize("name", REFUSED)
def test_a_family_that_cannot_be_exact_is_refused_with_the_reason(name):
    family, reason = REFUSED[name]
    if name in EXACT_IN_SOME and (expect := _accepted(family)) is not None:
        with start(build(family)) as engine:
            for step in walk(engine, expect):
                assert not step.wrong, f"{step.name}: {step.wrong}"
        return
    with pytest.raises(UnsupportedModelError, match=reason):
        Engine(build(family), EngineConfig(kv_tokens=64))


def _accepted(family):
    """Return the reference of a family if the engine accepts it with the installed transformers, else None."""
    try:
        Engine(build(family), EngineConfig(kv_tokens=64)).close()
    except UnsupportedModelError:
        return None
    return reference(build(family))


@pytest.mark.parametrize("prefix", REFUSED_CONFIGS)
def test_encoder_decoder_families_are_refused_by_their_config(prefix):
    with pytest.raises(UnsupportedModelError, match="encoder-decoder"):
        check_config(getattr(transformers, f"{prefix}Config")())


@pytest.mark.parametrize("name", ["llama, rope dynamic", "phi3, longrope"])
def test_a_rope_that_changes_with_length_runs_if_no_path_can_be_that_long(name):
    family, _ = REFUSED[name]
    ids = prompt(50, 1)
    tokens, _ = reference(build(family))(ids)
    with Engine(build(family), EngineConfig(kv_tokens=128, max_model_len=64)) as engine:
        (done,) = engine.generate([ids], SamplingParams(max_tokens=len(tokens)))
    assert list(done.token_ids) == tokens
    with pytest.raises(UnsupportedModelError, match="set max_model_len"):
        check_config(config_of(family), max_len=257)


def test_a_model_that_ignores_its_position_ids_fails_the_self_check():
    model = build(SUPPORTED["llama"])
    forward = model.model.rotary_emb.forward
    model.model.rotary_emb.forward = lambda x, position_ids: forward(x, position_ids - position_ids.min())
    with pytest.raises(UnsupportedModelError, match="differ"):
        Engine(model, EngineConfig(kv_tokens=64))


def test_a_forward_that_fails_without_a_cache_is_refused_with_its_error():
    model = build(SUPPORTED["llama"])
    model.model.layers[0].mlp.forward = lambda _: torch.zeros(1, 7, 5)
    with pytest.raises(UnsupportedModelError, match="fails: The size of tensor"):
        Engine(model, EngineConfig(kv_tokens=64))


def test_the_self_check_is_longer_than_a_window():
    """A layer whose window differs from its mask's is wrong only after the shorter of the two."""
    family = SUPPORTED["gemma2"]
    model = build(family._replace(options=dict(family.options) | {"sliding_window": 50}))
    model.model.layers[0].self_attn.sliding_window = 40
    with pytest.raises(UnsupportedModelError, match="differ"):
        Engine(model, EngineConfig(kv_tokens=128))
