"""Greedy tokens are those of transformers, however the prompt's KV was made."""

from __future__ import annotations

import itertools

import pytest
import torch

from treechat_engine import SamplingParams
from treechat_engine.attention.context import Work

FAMILIES = ["llama", "qwen2", "mistral-window", "gemma2-softcap-window", "gpt-oss-sinks"]
BOTH = [(family, forward) for family in FAMILIES for forward in ("transformers", "fused")]
BOTH.remove(("gpt-oss-sinks", "fused"))
NUM_TOKENS = 12
PARAMS = SamplingParams(max_tokens=NUM_TOKENS)


@pytest.mark.parametrize("chunk", [1, 7, 512])
@pytest.mark.parametrize(("family", "forward"), BOTH)
def test_tokens_do_not_depend_on_how_the_prefill_is_cut(family, forward, chunk, engines, greedy, prompt):
    ids = prompt(41)
    (done,) = engines(family, forward=forward, prefill_chunk=chunk).generate([ids], PARAMS)
    assert list(done.token_ids) == greedy(family, ids, NUM_TOKENS)
    assert done.usage.computed_tokens == 41


@pytest.mark.parametrize(("family", "forward"), BOTH)
def test_a_fork_and_a_jump_back_reuse_the_shared_prefix_and_change_no_token(family, forward, engines, greedy, prompt):
    engine = engines(family, forward=forward)
    trunk = prompt(30)
    left, right = trunk + prompt(9, seed=1), trunk + prompt(8, seed=2)
    for ids, num_computed in ((left, 39), (right, 8), (left, 0), (trunk[:20], 1)):
        (done,) = engine.generate([ids], PARAMS)
        assert list(done.token_ids) == greedy(family, ids, NUM_TOKENS)
        assert done.usage.computed_tokens == num_computed
        assert done.usage.cached_tokens == len(ids) - num_computed


@pytest.mark.parametrize(("family", "forward"), BOTH)
def test_the_next_turn_computes_its_own_tokens_and_the_last_sampled_one(family, forward, engines, greedy, prompt):
    engine = engines(family, forward=forward)
    ids = prompt(25)
    (first,) = engine.generate([ids], PARAMS)
    ids = [*ids, *first.token_ids, *prompt(6, seed=3)]
    (second,) = engine.generate([ids], PARAMS)
    assert second.usage.computed_tokens == 6 + 1, "the last sampled token has no KV yet"
    assert list(second.token_ids) == greedy(family, ids, NUM_TOKENS)


@pytest.mark.parametrize(("family", "forward"), BOTH)
def test_a_branch_rebuilt_after_eviction_gives_the_same_tokens(family, forward, engines, greedy, prompt):
    engine = engines(family, forward=forward, kv_tokens=64)
    ids = prompt(40)
    engine.generate([ids], PARAMS)
    engine.generate([prompt(45, seed=4)], PARAMS)
    assert engine.stats().evicted_tokens > 0
    (done,) = engine.generate([ids], PARAMS)
    assert done.usage.computed_tokens > 1, "nothing was evicted, so nothing was rebuilt"
    assert list(done.token_ids) == greedy(family, ids, NUM_TOKENS)


@pytest.mark.parametrize(("family", "forward"), BOTH)
def test_tokens_do_not_depend_on_the_rest_of_the_batch(family, forward, engines, greedy, prompt):
    trunk = prompt(20)
    prompts = [trunk + prompt(n, seed=n) for n in (1, 5, 14)] + [prompt(33, seed=9)]
    done = engines(family, forward=forward, prefill_chunk=16).generate(prompts, PARAMS)
    assert [list(each.token_ids) for each in done] == [greedy(family, ids, NUM_TOKENS) for ids in prompts]
    assert all(each.usage.cached_tokens == 20 for each in done[1:3]), "the trunk was computed more than once"


def test_a_path_of_many_short_extents_gives_the_same_tokens(engines, greedy, prompt):
    """No two tokens of the path are neighbours, so their slots are gathered and not viewed."""
    engine = engines()
    # This test allocates slots outside the cache, so the check after each step would fail.
    engine.worker.checks_cache = False
    pool = engine.cache.pool
    comb = pool.allocate(600)
    pool.free(comb[::2])
    pool.free([slot for slot in comb[1::2] if slot >= 400])
    ids = prompt(230)
    try:
        (done,) = engine.generate([ids], PARAMS)
        again = [*ids[:220], *prompt(5, seed=5)]
        (reused,) = engine.generate([again], PARAMS)
    finally:
        pool.free([slot for slot in comb[1::2] if slot < 400])
    assert list(done.token_ids) == greedy("llama", ids, NUM_TOKENS)
    assert list(reused.token_ids) == greedy("llama", again, NUM_TOKENS)
    assert reused.usage.computed_tokens == 5


@pytest.mark.parametrize(("family", "forward"), BOTH)
def test_logits_over_the_cache_are_within_1e_4_of_the_plain_forward(family, forward, engines, models, prompt):
    ids = prompt(50)
    model = models(family)
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    engine = engines(family, forward=forward)
    lease = engine.cache.lease(ids)
    assert engine.cache.grow(lease, 50)
    cuts = [0, 1, 8, 30, 49, 50]
    for start, stop in itertools.pairwise(cuts):
        logits = engine.worker.runner.step([Work(ids[start:stop], start, lease.extents, True)])
        assert (logits[0] - expected[stop - 1]).abs().max() < 1e-4
    engine.cache.release(lease)
