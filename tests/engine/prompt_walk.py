"""Run a tree of prompts through a small cache and compare each reply with transformers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from tests.engine.families import VOCAB_SIZE
from treechat_engine import Completion, Engine, EngineConfig, SamplingParams

NUM_TOKENS = 6
PREFILL_CHUNK = 24
# Room for a few of the walk's prompts, so its last part must evict.
KV_TOKENS = 160
_PARAMS = SamplingParams(max_tokens=NUM_TOKENS, ignore_eos=True)
# The largest difference of log-probabilities that are computed in two ways, in float32.
_TOLERANCE = 1e-4

Reference = Callable[[Sequence[int]], tuple[list[int], list[float]]]


class Step(NamedTuple):
    """The result of one step. `wrong` describes a difference and is empty without one."""

    name: str
    wrong: str


def reference(model: Any) -> Reference:
    """Return a function from ids to transformers' greedy continuation by eager attention: tokens, log-probabilities."""
    model.set_attn_implementation("eager")

    @functools.cache
    def run(ids: tuple[int, ...]) -> tuple[list[int], list[float]]:
        out = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=NUM_TOKENS,
            min_new_tokens=NUM_TOKENS,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        tokens = out.sequences[0, len(ids) :].tolist()
        logprobs = [row[0].float().log_softmax(-1)[token].item() for row, token in zip(out.logits, tokens, strict=True)]
        return tokens, logprobs

    return lambda ids: run(tuple(ids))


def start(model: Any) -> Engine:
    """Return an engine with a cache of the walk's size. Raises UnsupportedModelError for a refused model."""
    config = EngineConfig(device="cpu", kv_tokens=KV_TOKENS, prefill_chunk=PREFILL_CHUNK)
    return Engine(model, config, poison=True)


def walk(engine: Engine, expect: Reference) -> Iterator[Step]:
    """Prefill, prefill in chunks, fork, jump, take a turn, share a batch, evict and rebuild, on a new engine."""

    def step(name: str, ids: list[int], computed: int) -> Step:
        (done,) = engine.generate([ids], _PARAMS)
        wrong = difference(done, expect(ids))
        if done.usage.computed_tokens != computed:
            wrong = wrong or f"{done.usage.computed_tokens} tokens were computed, not {computed}"
        return Step(name, wrong)

    short, trunk = prompt(20, 1), prompt(32, 2)
    left, right = trunk + prompt(9, 3), trunk + prompt(8, 4)
    yield step("prefill", short, 20)
    yield step("chunks", left, 41)
    yield step("fork", right, 8)
    yield step("jump", left, 0)
    (reply,) = engine.generate([short], _PARAMS)
    yield step("turn", [*short, *reply.token_ids, *prompt(5, 5)], 5 + 1)
    together = [left + prompt(3, 6), short + prompt(1, 7), prompt(30, 8)]
    wrong = [
        difference(done, expect(ids)) for done, ids in zip(engine.generate(together, _PARAMS), together, strict=True)
    ]
    yield Step("batch", next(filter(None, wrong), ""))
    engine.generate([prompt(KV_TOKENS - NUM_TOKENS, 9)], _PARAMS)
    yield Step("evict", "" if engine.residency(left).cold else "nothing was evicted")
    yield step("rebuild", left, 41)


def difference(done: Completion, expected: tuple[list[int], list[float]]) -> str:
    """Return how a reply differs from the expected tokens and log-probabilities; empty if it does not."""
    tokens, logprobs = expected
    if list(done.token_ids) != tokens:
        return f"the tokens are {list(done.token_ids)}, not {tokens} (log-probabilities {done.logprobs}, {logprobs})"
    worst = max(abs(ours - theirs) for ours, theirs in zip(done.logprobs, logprobs, strict=True))
    return "" if worst < _TOLERANCE else f"a log-probability differs by {worst:.2g}"


def prompt(num_tokens: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCAB_SIZE, (num_tokens,), generator=generator).tolist()
