"""The sampler: each option follows its definition, draws follow the distribution, rows are independent."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from treechat_engine import SamplingParams
from treechat_engine.sampling.sampler import NUM_LIKELY, Sampler, choose, sample

VOCAB = 8
LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0, -4.0])
NUM_DRAWS = 3000
# Unsorted, and more tokens than a block of the draw and than NUM_LIKELY of top-p; a multiple of neither.
generator = torch.Generator().manual_seed(5)
WIDE = torch.randn(1000, generator=generator) * 0.5
PROMPT, REPLY = [0, 3, 3, 7], [1, 1, 4, 0]
EVERYTHING = {
    "temperature": 0.8,
    "top_k": 6,
    "top_p": 0.9,
    "min_p": 0.05,
    "repetition_penalty": 1.3,
    "presence_penalty": 0.4,
    "frequency_penalty": 0.2,
    "logit_bias": {2: 0.7, 5: -1.0},
}
OPTIONS = [
    {},
    {"temperature": 0.5},
    {"temperature": 2.0},
    {"top_k": 3},
    {"top_p": 0.7},
    {"top_p": 1e-6},
    {"min_p": 0.2},
    {"top_k": 4, "top_p": 0.8},
    {"top_p": 0.9, "min_p": 0.1},
    {"repetition_penalty": 1.5},
    {"repetition_penalty": 0.7},
    {"presence_penalty": 1.0},
    {"frequency_penalty": 0.5},
    {"frequency_penalty": -0.5, "presence_penalty": -0.3},
    {"logit_bias": {5: 2.0, 0: -math.inf}},
    EVERYTHING,
]


def make(prompt=PROMPT, reply=REPLY, vocab=VOCAB, **options):
    sampler = Sampler(SamplingParams(**({"temperature": 1.0} | options)), prompt, vocab)
    for token_id in reply:
        sampler.record(token_id)
    return sampler


def exact(logits, prompt=PROMPT, reply=REPLY, **options):
    """Return the distribution that the options define, computed step by step with Python floats."""
    params = SamplingParams(**({"temperature": 1.0} | options))
    values = [float(value) for value in logits]
    for i in {*prompt, *reply}:
        values[i] *= params.repetition_penalty if values[i] < 0 else 1 / params.repetition_penalty
    for i in set(reply):
        values[i] -= params.presence_penalty + params.frequency_penalty * reply.count(i)
    for i, bias in params.logit_bias.items():
        values[i] += bias
    order = sorted(range(len(values)), key=lambda i: -values[i])
    order = order[: params.top_k or None]
    weights = {i: math.exp((values[i] - values[order[0]]) / params.temperature) for i in order}
    total = sum(weights.values())
    kept, mass = [], 0.0
    for i in order:
        if mass < params.top_p:
            kept.append(i)
        mass += weights[i] / total
    kept = [i for i in kept if weights[i] >= params.min_p * weights[order[0]]]
    total = sum(weights[i] for i in kept)
    return torch.tensor([weights[i] / total if i in kept else 0.0 for i in range(len(values))], dtype=torch.float64)


def chi_square(observed_ids, expected):
    """Return the statistic and its degrees of freedom.

    Classes have 20 expected draws or more: rare tokens are joined with others of similar probability.
    """
    num = len(observed_ids)
    counts = torch.bincount(observed_ids, minlength=len(expected)).double()
    assert counts[expected == 0].sum() == 0, "a token was drawn that the cuts had dropped"
    pairs, seen, wanted = [], 0.0, 0.0
    for i in expected.argsort(descending=True, stable=True).tolist():
        seen, wanted = seen + counts[i].item(), wanted + expected[i].item() * num
        if wanted >= 20:
            pairs.append((seen, wanted))
            seen, wanted = 0.0, 0.0
    return sum((seen - wanted) ** 2 / wanted for seen, wanted in pairs), len(pairs) - 1


def likely_limit(freedom):
    """Return the chi-square value exceeded once in about 100,000 seeds (Wilson and Hilferty's approximation)."""
    return max(freedom, 1) * (1 - 2 / (9 * max(freedom, 1)) + 4.27 * math.sqrt(2 / (9 * max(freedom, 1)))) ** 3


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "plain")
def test_draws_follow_the_exact_distribution(options):
    samplers = [make(seed=seed, **options) for seed in range(NUM_DRAWS)]
    statistic, freedom = chi_square(choose(LOGITS.expand(NUM_DRAWS, -1), samplers), exact(LOGITS, **options))
    assert statistic < likely_limit(freedom)


@pytest.mark.parametrize("options", [{}, {"top_k": 40}, {"top_p": 0.2}, {"top_p": 0.95}, {"min_p": 0.3}], ids=str)
def test_draws_from_a_wide_vocabulary_follow_the_exact_distribution(options):
    # Fewer draws if rows are drawn one by one.
    num_draws = NUM_DRAWS // 3 if options in ({"top_p": 0.95}, {"min_p": 0.3}) else NUM_DRAWS
    samplers = [make(vocab=1000, seed=seed, **options) for seed in range(num_draws)]
    expected = exact(WIDE, **options)
    assert (int((expected > 0).sum()) > NUM_LIKELY) == (options in ({}, {"top_p": 0.95}, {"min_p": 0.3}))
    statistic, freedom = chi_square(choose(WIDE.expand(num_draws, -1), samplers), expected)
    assert freedom > 20
    assert statistic < likely_limit(freedom)


def test_the_draws_of_one_request_follow_the_distribution_too():
    sampler = make(seed=3, reply=[])
    ids = torch.cat([choose(LOGITS[None], [sampler]) for _ in range(NUM_DRAWS)])
    statistic, freedom = chi_square(ids, exact(LOGITS, reply=[]))
    assert statistic < likely_limit(freedom)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "plain")
def test_greedy_chooses_the_most_likely_after_penalties_and_bias(options):
    options = options | {"temperature": 0.0}
    expected = exact(LOGITS, **(options | {"temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "top_k": 0})).argmax()
    assert choose(LOGITS[None], [make(**options)]).item() == expected


def test_a_row_has_the_same_bits_alone_and_in_any_batch():
    mixed = [{**options, "top_logprobs": i % 4} for i, options in enumerate(OPTIONS)] + [{"temperature": 0.0}]
    rows = torch.stack([WIDE.roll(31 * i) for i in range(len(mixed))])

    def run(members):
        samplers = [make(vocab=1000, seed=i, **mixed[i]) for i in members]
        return dict(zip(members, sample(rows[list(members)], samplers), strict=True))

    alone = {i: run([i])[i] for i in range(len(mixed))}
    assert run(list(range(len(mixed)))) == alone
    for pair in itertools.pairwise(range(len(mixed))):
        assert run(pair) == {i: alone[i] for i in pair}
    assert run(list(reversed(range(len(mixed))))) == alone


def test_the_logits_are_not_written():
    logits = LOGITS.expand(len(OPTIONS), -1).contiguous()
    sample(logits, [make(**options) for options in OPTIONS])
    assert torch.equal(logits, LOGITS.expand(len(OPTIONS), -1))


def test_a_penalty_is_recorded_for_tokens_beyond_the_first_hundred():
    sampler = make(prompt=[], reply=list(range(300)), vocab=1000, temperature=0.0, presence_penalty=100.0)
    assert choose(WIDE[None], [sampler]).item() == 300 + int(WIDE[300:].argmax())


def test_logprobs_are_those_of_the_model_whatever_the_sampling():
    options = {"temperature": 0.3, "top_k": 2, "logit_bias": {5: 50.0}, "seed": 1, "top_logprobs": 3}
    first, second = sample(torch.stack([LOGITS, LOGITS.flip(0)]), [make(**options), make(temperature=0.0)])
    assert (first.id, second.id) == (5, 7)
    assert first.logprob == pytest.approx(LOGITS.log_softmax(0)[5].item(), abs=1e-6)
    assert [token_id for token_id, _ in first.top] == [0, 1, 2]
    assert [value for _, value in first.top] == pytest.approx(LOGITS.log_softmax(0)[:3].tolist(), abs=1e-6)
    assert second.top == ()


@pytest.mark.parametrize("num_top", [1, 20])
def test_up_to_twenty_alternatives_are_given_most_likely_first(num_top):
    (token,) = sample(WIDE[None], [make(vocab=1000, top_logprobs=num_top)])
    expected = WIDE.log_softmax(0).sort(descending=True)
    assert [token_id for token_id, _ in token.top] == expected.indices[:num_top].tolist()
    assert [value for _, value in token.top] == pytest.approx(expected.values[:num_top].tolist(), abs=1e-6)


BIASES = [{VOCAB: 1.0}, {-1: 1.0}, {1.5: 1.0}, {"1": 1.0}, {0: math.nan}, {0: math.inf}, {0: -1e7}]


@pytest.mark.parametrize("bias", [*BIASES, dict.fromkeys(range(VOCAB), -math.inf)], ids=str)
def test_an_invalid_bias_is_refused(bias):
    with pytest.raises(ValueError, match="logit_bias"):
        make(logit_bias=bias)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e7, -1e7])
@pytest.mark.parametrize("field", ["presence_penalty", "frequency_penalty", "repetition_penalty", "temperature"])
def test_params_that_no_float32_can_hold_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(SamplingParams(), **{field: value})


@pytest.mark.parametrize("cuts", [{}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}], ids=str)
@pytest.mark.parametrize("temperature", [1e-6, 1e-45, 1e-300])
def test_a_temperature_of_next_to_nothing_is_greedy(temperature, cuts):
    samplers = [make(reply=[], seed=seed, temperature=temperature, **cuts) for seed in range(20)]
    assert choose(LOGITS.repeat(20, 1), samplers).tolist() == [0] * 20


EXTREMES = [
    {"temperature": 1e6},
    {"temperature": 1e-5},
    {"repetition_penalty": 0.001, "temperature": 1e-5},
    {"repetition_penalty": 1000.0},
    {"presence_penalty": -1e6, "frequency_penalty": 1e6},
    {"logit_bias": {5: 1e6}, "temperature": 1e-5},
    {"logit_bias": dict.fromkeys(range(7), -math.inf)},
    {"top_k": 10**30, "top_p": 1e-12, "min_p": 1.0},
]


@pytest.mark.parametrize("cuts", [{}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}], ids=str)
@pytest.mark.parametrize("options", EXTREMES, ids=str)
def test_parameters_at_their_limits_leave_the_tokens_that_are_defined(options, cuts):
    kept = exact(LOGITS, **cuts | options) > 0
    samplers = [make(**cuts | options, seed=seed) for seed in range(50)]
    chosen = sample(LOGITS.repeat(50, 1), samplers)
    assert {token.id for token in chosen} <= set(kept.nonzero().flatten().tolist())
    assert all(math.isfinite(token.logprob) for token in chosen)


ONE_LEFT = torch.full((VOCAB,), -math.inf).index_fill(0, torch.tensor([6]), 3.0)


@pytest.mark.parametrize("options", [*OPTIONS[:9], {"temperature": 0.0}, {"temperature": 1e6}], ids=str)
def test_the_only_remaining_token_is_chosen(options):
    (token,) = sample(ONE_LEFT[None], [make(**options, top_logprobs=3)])
    assert (token.id, token.logprob, token.top[0]) == (6, 0.0, (6, 0.0))


@pytest.mark.parametrize("options", [*OPTIONS[:9], {"temperature": 0.0}], ids=str)
@pytest.mark.parametrize("row", ["not a number", "infinite", "one is not a number", "all forbidden"])
def test_a_row_without_a_choice_has_no_log_probability_and_does_not_change_the_others(row, options):
    bias = {}
    bad = LOGITS.clone()
    if row == "all forbidden":
        bad, bias = ONE_LEFT, {"logit_bias": {6: -math.inf}}
    elif row == "one is not a number":
        bad[3] = math.nan
    else:
        bad[:] = math.nan if row == "not a number" else math.inf
    (alone,) = sample(LOGITS[None], [make(**options, seed=3)])
    broken, neighbour = sample(torch.stack([bad, LOGITS]), [make(**options | bias, seed=5), make(**options, seed=3)])
    assert math.isnan(broken.logprob)
    assert neighbour == alone


def test_equal_alternatives_are_the_same_alone_and_in_a_batch():
    ties = torch.zeros(4096)
    (alone,) = sample(ties[None], [make(vocab=4096, top_logprobs=20)])
    others = sample(ties.repeat(3, 1), [make(vocab=4096, top_logprobs=n) for n in (1, 20, 5)])
    assert others[1].top == alone.top and others[2].top == alone.top[:5]
    assert len({token_id for token_id, _ in alone.top}) == 20
