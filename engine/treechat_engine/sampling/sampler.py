"""From logits to the next token, in one vectorised pass over the batch.

The operations are in the order of transformers: penalties, bias, temperature, top-k, top-p, min-p. Reported
log-probabilities are those of the model's own distribution, before these operations.

A reply does not depend on the other rows of its batch. Each request has its own seeded draws. Rows are processed
together only with rows of the same cuts, in operations that treat each row alone. A row's cost does not depend on other
rows' parameters.
"""

from __future__ import annotations

import math
import random
import secrets
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch

from treechat_engine.api import SamplingParams, Token
from treechat_engine.sampling.draw import draw
from treechat_engine.sampling.penalties import Bias, History, adjust

# Always look up this many alternatives at once, so that the order of equal ones does not depend on other rows.
MAX_TOP_LOGPROBS = 20
# Without top-k, top-p and min-p first use this many tokens, which usually include all that stay.
NUM_LIKELY = 128
# A lower temperature is greedy, because logits divided by it overflow float32.
MIN_TEMPERATURE = 1e-5
# The search for the largest values uses blocks of this many.
SEARCH_LEN = 64


class Cut(NamedTuple):
    """How a row is cut before its draw. Rows of equal cuts are drawn together.

    greedy: take the most likely token, without a draw.
    top_k: 0: no cut.
    has_top_p: whether top_p cuts.
    has_min_p: whether min_p cuts.
    """

    greedy: bool
    top_k: int
    has_top_p: bool
    has_min_p: bool


class Sampler:
    """The sampling state of one request: its draws and, if it has penalties, its history.

    Raises ValueError for a logit bias outside the vocabulary.

    params: how the request samples.
    prompt_ids: counted by the repetition penalty.
    vocab_size: ids are below it.
    """

    def __init__(self, params: SamplingParams, prompt_ids: Sequence[int], vocab_size: int) -> None:
        self.params = params
        self.seed = params.seed if params.seed is not None else secrets.randbits(31)
        greedy = params.temperature < MIN_TEMPERATURE
        top_k = params.top_k if params.top_k < vocab_size else 0
        self.cut = Cut(True, 0, False, False) if greedy else Cut(False, top_k, params.top_p < 1, params.min_p > 0)
        self._random = random.Random(self.seed)
        self._draws_ahead: deque[float] = deque()
        has_penalty = params.repetition_penalty != 1 or params.presence_penalty or params.frequency_penalty
        self.history = History(params, prompt_ids) if has_penalty else None
        self.bias = Bias(params, vocab_size) if params.logit_bias else None

    def draw(self) -> float:
        """Return the request's next number in [0, 1)."""
        return self._draws_ahead.popleft() if self._draws_ahead else self._random.random()

    def peek(self, offset: int) -> float:
        """Return the result of `draw` after `offset` more calls."""
        while len(self._draws_ahead) <= offset:
            self._draws_ahead.append(self._random.random())
        return self._draws_ahead[offset]

    def record(self, token_id: int) -> None:
        """Count a chosen token."""
        if self.history is not None:
            self.history.record(token_id)


def sample(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[Token]:
    """Return one token per row of logits [rows, vocabulary], and record it in its sampler. Draws once per row.

    A token's log-probability is NaN if the row has no possible token: its logits are not numbers, or all are forbidden.
    """
    logits = logits.float()
    adjusted = _adjust(logits, samplers)
    chosen = _choose(adjusted, samplers)
    # Row by row, unlike logsumexp, which splits the sum of a single row by the number of threads.
    logprobs = logits.log_softmax(dim=-1)
    tops = _alternatives(logprobs, samplers)
    found = logprobs.gather(1, chosen[:, None]).squeeze(1)
    if adjusted is not logits:
        found = found.masked_fill(adjusted.gather(1, chosen[:, None]).squeeze(1) == -math.inf, math.nan)
    chosen_logprobs = found.tolist()
    tokens = []
    for row, (token_id, logprob, sampler) in enumerate(zip(chosen.tolist(), chosen_logprobs, samplers, strict=True)):
        sampler.record(token_id)
        tokens.append(Token(token_id, logprob, tops.get(row, ())))
    return tokens


def choose(logits: torch.Tensor, samplers: Sequence[Sampler]) -> torch.Tensor:
    """Return the next token id [rows] of float32 logits [rows, vocabulary]. Does not write to them."""
    return _choose(_adjust(logits, samplers), samplers)


def _adjust(logits: torch.Tensor, samplers: Sequence[Sampler]) -> torch.Tensor:
    """Return the logits after penalties and biases; the same tensor if there are none."""
    histories = [(row, s.history) for row, s in enumerate(samplers) if s.history is not None]
    biases = [(row, s.bias) for row, s in enumerate(samplers) if s.bias is not None]
    return adjust(logits, histories, biases)


def _choose(logits: torch.Tensor, samplers: Sequence[Sampler]) -> torch.Tensor:
    """Return the next token id [rows] of adjusted logits."""
    groups: dict[Cut, list[int]] = {}
    for row, sampler in enumerate(samplers):
        groups.setdefault(sampler.cut, []).append(row)
    if len(groups) == 1:
        return _choose_same_cut(logits, samplers[0].cut, samplers)
    chosen = torch.empty(len(samplers), dtype=torch.long, device=logits.device)
    for cut, rows in groups.items():
        index = torch.tensor(rows, device=logits.device)
        chosen[index] = _choose_same_cut(logits[index], cut, [samplers[row] for row in rows])
    return chosen


def _choose_same_cut(logits: torch.Tensor, cut: Cut, samplers: Sequence[Sampler]) -> torch.Tensor:
    """Return the next token of rows that have the same cut."""
    if cut.greedy:
        return _argmax(logits)
    temperature = _column([s.params.temperature for s in samplers], logits)
    draws = torch.tensor([[s.draw()] for s in samplers], dtype=torch.float64, device=logits.device)
    top_p = _column([s.params.top_p for s in samplers], logits) if cut.has_top_p else None
    min_p = _column([s.params.min_p for s in samplers], logits) if cut.has_min_p else None
    if cut.top_k:
        values, ids = _largest(logits, cut.top_k)
        return ids.gather(1, draw((values / temperature).softmax(dim=-1), draws, top_p, min_p)).squeeze(1)
    if top_p is None and min_p is None:
        return draw((logits / temperature).softmax(dim=-1), draws, None, None).squeeze(1)
    return _choose_likely(logits, temperature, draws, top_p, min_p).squeeze(1)


def _choose_likely(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    draws: torch.Tensor,
    top_p: torch.Tensor | None,
    min_p: torch.Tensor | None,
) -> torch.Tensor:
    """Draw ids [rows, 1] under top-p, min-p or both, from the few likely tokens if they include all that stay."""
    values, ids = _largest(logits, min(NUM_LIKELY, logits.shape[1]))
    likely = ((values - values[:, :1]) / temperature).exp()
    if top_p is not None:
        # The mass of the other tokens counts too, unless their number times the least likely probability is below
        # rounding.
        total = likely.sum(dim=-1, keepdim=True)
        rest = likely[:, -1:] * (logits.shape[1] - likely.shape[1])
        likely /= total
        for row in (rest > total * 2**-24).flatten().nonzero().flatten().tolist():
            one = slice(row, row + 1)
            likely[one] = (logits[one] / temperature[one]).softmax(dim=-1).gather(1, ids[one])
        short = likely.cumsum(dim=-1)[:, -1:] < top_p
    else:
        assert min_p is not None, "neither top-p nor min-p"
        short = likely[:, -1:] >= min_p
    chosen = ids.gather(1, draw(likely, draws, top_p, min_p))
    if likely.shape[1] == logits.shape[1]:
        return chosen
    # More tokens stay than the likely ones, so draw from all that can matter.
    for row in short.flatten().nonzero().flatten().tolist():
        one = slice(row, row + 1)
        probs = (logits[one] / temperature[one]).softmax(dim=-1)
        floor = None if min_p is None else min_p[one]
        if top_p is None:
            chosen[one] = draw(probs, draws[one], None, floor)
        else:
            ordered, order = _descending(probs[0], float(top_p[row]))
            chosen[one] = order[draw(ordered, draws[one], top_p[one], floor)]
    return chosen


def _largest(values: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k largest values of each row [rows, n], descending, and their positions.

    On a CPU only the k blocks with the largest maxima are searched, because they contain the result: this finds the 40
    largest of 49,152 values in a third of the time.
    """
    num_rows, num = values.shape
    if values.device.type != "cpu" or 4 * k * SEARCH_LEN > num or num % SEARCH_LEN:
        found = values.topk(k)
        return found.values, found.indices
    blocks = values.view(num_rows, -1, SEARCH_LEN)
    best = blocks.amax(dim=-1).topk(k).indices
    some = blocks.gather(1, best[:, :, None].expand(-1, -1, SEARCH_LEN)).view(num_rows, -1)
    found = some.topk(k)
    block = best.gather(1, found.indices // SEARCH_LEN)
    return found.values, block * SEARCH_LEN + found.indices % SEARCH_LEN


def _argmax(logits: torch.Tensor) -> torch.Tensor:
    """Return the most likely id of each row; the first of equal ones. NumPy is ten times as fast on a CPU."""
    if logits.device.type == "cpu":
        return torch.from_numpy(logits.numpy().argmax(axis=-1))
    return logits.argmax(dim=-1)


def _descending(probs: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return probs [1, n] in descending order and their ids [n], without tokens too unlikely for the top-p.

    All tokens that are less likely than (1 - top_p) / vocabulary together have less mass than 1 - top_p, so top-p drops
    them.
    """
    ids = (probs >= 0.99 * (1 - top_p) / len(probs)).nonzero().flatten()
    ordered, order = probs[ids].sort(descending=True, stable=True)
    return ordered[None], ids[order]


def _alternatives(logprobs: torch.Tensor, samplers: Sequence[Sampler]) -> dict[int, tuple[tuple[int, float], ...]]:
    """Return, by row, the most likely (id, log-probability) pairs for rows that request them."""
    rows = [row for row, sampler in enumerate(samplers) if sampler.params.top_logprobs]
    if not rows:
        return {}
    wanted = logprobs if len(rows) == len(samplers) else logprobs[torch.tensor(rows, device=logprobs.device)]
    values, ids = _largest(wanted, min(MAX_TOP_LOGPROBS, logprobs.shape[1]))
    pairs = zip(rows, ids.tolist(), values.tolist(), strict=True)
    return {
        row: tuple(zip(row_ids, row_values, strict=True))[: samplers[row].params.top_logprobs]
        for row, row_ids, row_values in pairs
    }


def _column(values: list[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None]
