"""The parts that all measurements share: sizes, prompts that are not cached, and one timed request."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from treechat_engine import Engine, SamplingParams

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Sizes:
    """Lengths in tokens and numbers of repeats. Figures are medians of the repeats.

    prefix_lens: prompts of jumps and forks.
    branch_len: tokens of each branch after the prefix.
    new_lens: tokens of the new turn.
    num_siblings, sibling_len: the replies to one prompt and the tokens of each.
    decode_batches, decode_contexts, decode_len: the decoded batch sizes, context lengths and tokens.
    num_repeats: repeats of each measurement.
    """

    prefix_lens: tuple[int, ...] = (1_500, 4_000)
    branch_len: int = 250
    new_lens: tuple[int, ...] = (29, 1)
    num_siblings: int = 5
    sibling_len: int = 64
    decode_batches: tuple[int, ...] = (1, 4)
    decode_contexts: tuple[int, ...] = (64, 1_500)
    decode_len: int = 48
    num_repeats: int = 3


QUICK = Sizes((256,), 64, (29,), 3, 16, (1,), (64,), 16, 1)


class Prompts:
    """Random token ids, the same for the same seed. Draws begin with different ids as long as enough ids are left."""

    def __init__(self, vocab_size: int, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._vocab_size = vocab_size
        self._first_ids: set[int] = set()

    def draw(self, length: int) -> list[int]:
        ids = self._random.choices(range(self._vocab_size), k=length)
        if len(self._first_ids) >= self._vocab_size // 2:
            self._first_ids.clear()
        while ids[0] in self._first_ids:
            ids[0] = self._random.randrange(self._vocab_size)
        self._first_ids.add(ids[0])
        return ids


class FirstToken(NamedTuple):
    """The seconds from submission to the first token, and the prompt tokens computed for it."""

    ttft_s: float
    computed_tokens: int


def first_token(engine: Engine, ids: Sequence[int]) -> FirstToken:
    """Run a prompt up to its first token. Its KV stays cached."""
    [done] = engine.generate([ids], SamplingParams(max_tokens=1, ignore_eos=True))
    return FirstToken(done.usage.ttft_s, done.usage.computed_tokens)


def resume_row(
    prefix_len: int, branch_len: int, new_len: int, runs: Sequence[tuple[FirstToken, float]]
) -> dict[str, Any]:
    """Return one row of the results.

    prefix_len, branch_len, new_len: tokens of the prompt's parts.
    runs: pairs of a resumed run and the seconds of a full prefill of a prompt of the same length.
    """
    ttft_s = median(run.ttft_s for run, _ in runs)
    full_s = median(full for _, full in runs)
    return {
        "prefix_tokens": prefix_len,
        "branch_tokens": branch_len,
        "new_tokens": new_len,
        "computed_tokens": max(run.computed_tokens for run, _ in runs),
        "ttft_s": ttft_s,
        "full_prefill_s": full_s,
        "speedup": full_s / ttft_s,
    }
