"""The sampler: each option does what its definition says, and draws follow the distribution."""

from __future__ import annotations

import pytest
import torch

from treechat_engine import SamplingParams
from treechat_engine.sampling import Sampler, sample

VOCAB = 8
LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0, -4.0])


def draws(num_draws, **options):
    sampler = Sampler(SamplingParams(**({"temperature": 1.0, "seed": 3} | options)), [0], VOCAB, torch.device("cpu"))
    return torch.tensor([sampler.choose(LOGITS) for _ in range(num_draws)])


def shares(ids):
    return torch.bincount(ids, minlength=VOCAB) / len(ids)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax_at_the_temperature(temperature):
    expected = (LOGITS / temperature).softmax(0)
    observed = shares(draws(4000, temperature=temperature))
    # Chi-square with 7 degrees of freedom: 29.9 is passed once in ten thousand seeds.
    assert (4000 * (observed - expected) ** 2 / expected).sum() < 29.9


def test_top_k_keeps_the_k_most_likely():
    assert set(draws(300, top_k=3).tolist()) == {0, 1, 2}


def test_top_p_keeps_the_smallest_set_that_holds_the_mass():
    mass = LOGITS.softmax(0).cumsum(0)
    assert mass[0] < 0.7 < mass[1]
    assert set(draws(300, top_p=0.7).tolist()) == {0, 1}
    assert set(draws(50, top_p=1e-6).tolist()) == {0}


def test_min_p_keeps_what_is_a_share_as_likely_as_the_most_likely():
    assert set(draws(500, min_p=0.2).tolist()) == {0, 1, 2}


def test_draws_never_leave_what_the_cuts_kept_and_follow_its_distribution():
    expected = torch.zeros(VOCAB)
    expected[:4] = LOGITS[:4].softmax(0)
    observed = shares(draws(3000, top_k=4, top_p=0.999))
    assert observed[4:].sum() == 0
    assert (observed - expected).abs().max() < 0.04


def greedy_choice(prompt=(7,), history=(), **options):
    sampler = Sampler(SamplingParams(**options), list(prompt), VOCAB, torch.device("cpu"))
    for token_id in history:
        sampler.record(token_id)
    return sampler.choose(LOGITS)


def test_the_repetition_penalty_counts_the_prompt_and_the_reply():
    assert greedy_choice(repetition_penalty=3.0) == 0
    assert greedy_choice(prompt=(0,), repetition_penalty=3.0) == 1
    assert greedy_choice(history=(0,), repetition_penalty=3.0) == 1


def test_presence_counts_once_and_frequency_each_time_and_neither_the_prompt():
    assert greedy_choice(prompt=(0,), presence_penalty=2.0) == 0
    assert greedy_choice(history=(0,), presence_penalty=2.0) == 1
    assert greedy_choice(history=(0,), frequency_penalty=0.4) == 0
    assert greedy_choice(history=(0, 0, 0), frequency_penalty=0.4) == 1


def test_a_logit_bias_moves_the_choice():
    assert greedy_choice(logit_bias={5: 10.0}) == 5
    assert greedy_choice(logit_bias={0: -100.0}) == 1


def test_logprobs_are_those_of_the_model_whatever_the_sampling():
    options = {"temperature": 0.3, "top_k": 2, "logit_bias": {5: 50.0}, "seed": 1, "top_logprobs": 3}
    samplers = [Sampler(SamplingParams(**options), [0], VOCAB, torch.device("cpu")) for _ in range(2)]
    for token in sample(torch.stack([LOGITS, LOGITS.flip(0)]), samplers)[:1]:
        assert token.id == 5
        assert token.logprob == pytest.approx(LOGITS.log_softmax(0)[5].item(), abs=1e-6)
        assert [token_id for token_id, _ in token.top] == [0, 1, 2]
        assert [value for _, value in token.top] == pytest.approx(LOGITS.log_softmax(0)[:3].tolist(), abs=1e-6)
