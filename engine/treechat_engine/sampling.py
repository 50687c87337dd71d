"""From logits to the next token, in one vectorised pass over the batch.

The order of the operations is that of transformers: penalties, bias, temperature, top-k, top-p, min-p. Reported
log-probabilities are those of the model's own distribution, before any of these.

A reply does not depend on what shared its batch: each request has its own seeded draws, and rows are taken together
only with rows of the same cuts, in operations that treat each row by itself. So no row pays for what another asks.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn.functional import pad

from treechat_engine.api import SamplingParams, Token
from treechat_engine.penalties import Bias, History, adjust

# Alternatives are always looked up this many at a time, so that their order among equals depends on no other row.
MAX_TOP_LOGPROBS = 20
# top-p alone first looks among this many, which most often hold the mass: on one core, 0.13 ms of a row of 49,152
# logits against 5 ms for sorting it.
NUM_LIKELY = 128
# A draw from more tokens than this chooses a block of them first.
BLOCK_LEN = 256


class Cut(NamedTuple):
    """How a row is cut before its draw. Rows of equal cuts are drawn together; greedy rows draw nothing."""

    greedy: bool
    top_k: int
    has_top_p: bool
    has_min_p: bool


class Sampler:
    """The sampling state of one request: its draws and, where penalties ask for it, its history.

    Raises ValueError for a logit bias outside the vocabulary.
    """

    def __init__(
        self, params: SamplingParams, prompt_ids: Sequence[int], vocab_size: int, device: torch.device | None = None
    ) -> None:
        self.params = params
        self.seed = params.seed if params.seed is not None else secrets.randbits(31)
        greedy = params.temperature == 0
        top_k = params.top_k if params.top_k < vocab_size else 0
        self.cut = Cut(True, 0, False, False) if greedy else Cut(False, top_k, params.top_p < 1, params.min_p > 0)
        self._random = random.Random(self.seed)
        has_penalty = params.repetition_penalty != 1 or params.presence_penalty or params.frequency_penalty
        self.history = History(params, prompt_ids) if has_penalty else None
        self.bias = Bias(params, vocab_size) if params.logit_bias else None

    def draw(self) -> float:
        """The request's next number in [0, 1)."""
        return self._random.random()

    def record(self, token_id: int) -> None:
        """Counts a token that was chosen."""
        if self.history is not None:
            self.history.record(token_id)


def sample(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[Token]:
    """One token per row of logits [rows, vocabulary], recorded in its sampler. Advances draws by one per row."""
    logits = logits.float()
    chosen = choose(logits, samplers)
    # Row by row, unlike logsumexp, whose sum of a single row is cut by the number of threads.
    logprobs = logits.log_softmax(dim=-1)
    tops = _alternatives(logprobs, samplers)
    chosen_logprobs = logprobs.gather(1, chosen[:, None]).squeeze(1).tolist()
    tokens = []
    for row, (token_id, logprob, sampler) in enumerate(zip(chosen.tolist(), chosen_logprobs, samplers, strict=True)):
        sampler.record(token_id)
        tokens.append(Token(token_id, logprob, tops.get(row, ())))
    return tokens


def choose(logits: torch.Tensor, samplers: Sequence[Sampler]) -> torch.Tensor:
    """The next token id [rows] of float32 logits [rows, vocabulary], which are not written."""
    histories = [(row, s.history) for row, s in enumerate(samplers) if s.history is not None]
    biases = [(row, s.bias) for row, s in enumerate(samplers) if s.bias is not None]
    logits = adjust(logits, histories, biases)
    groups: dict[Cut, list[int]] = {}
    for row, sampler in enumerate(samplers):
        groups.setdefault(sampler.cut, []).append(row)
    if len(groups) == 1:
        return _choose_alike(logits, samplers[0].cut, samplers)
    chosen = torch.empty(len(samplers), dtype=torch.long, device=logits.device)
    for cut, rows in groups.items():
        index = torch.tensor(rows, device=logits.device)
        chosen[index] = _choose_alike(logits[index], cut, [samplers[row] for row in rows])
    return chosen


def _choose_alike(logits: torch.Tensor, cut: Cut, samplers: Sequence[Sampler]) -> torch.Tensor:
    """The next token of rows that are all cut in the same way."""
    if cut.greedy:
        return _argmax(logits)
    scaled = logits / _column([s.params.temperature for s in samplers], logits)
    draws = torch.tensor([[s.draw()] for s in samplers], dtype=torch.float64, device=logits.device)
    top_p = _column([s.params.top_p for s in samplers], logits) if cut.has_top_p else None
    min_p = _column([s.params.min_p for s in samplers], logits) if cut.has_min_p else None
    if cut.top_k:
        scaled, ids = scaled.topk(cut.top_k)
        return ids.gather(1, _draw(scaled.softmax(dim=-1), draws, top_p, min_p)).squeeze(1)
    probs = scaled.softmax(dim=-1)
    if top_p is None:
        return _draw(probs, draws, None, min_p).squeeze(1)
    likely, ids = probs.topk(min(NUM_LIKELY, probs.shape[1]))
    chosen = ids.gather(1, _draw(likely, draws, top_p, min_p))
    # Where the likely ones hold less than the mass asked for, the draw is made again from all that can matter.
    for row in (likely.cumsum(dim=-1)[:, -1:] < top_p).flatten().nonzero().flatten().tolist():
        one = slice(row, row + 1)
        ordered, ids = _descending(probs[row], samplers[row].params.top_p)
        chosen[one] = ids[_draw(ordered, draws[one], top_p[one], None if min_p is None else min_p[one])]
    return chosen.squeeze(1)


def _argmax(logits: torch.Tensor) -> torch.Tensor:
    """The most likely id of each row; the first among equals. NumPy's is ten times as fast on a CPU."""
    if logits.device.type == "cpu":
        return torch.from_numpy(logits.numpy().argmax(axis=-1))
    return logits.argmax(dim=-1)


def _descending(probs: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """probs [1, n] in descending order and their ids [n], without those too unlikely to be among the top-p.

    All that are less likely than (1 - top_p) / vocabulary hold less than 1 - top_p together, so top-p drops them.
    """
    ids = (probs >= 0.99 * (1 - top_p) / len(probs)).nonzero().flatten()
    ordered, order = probs[ids].sort(descending=True, stable=True)
    return ordered[None], ids[order]


def _draw(
    probs: torch.Tensor, draws: torch.Tensor, top_p: torch.Tensor | None, min_p: torch.Tensor | None
) -> torch.Tensor:
    """Positions [rows, 1] drawn from probs [rows, n], which are in descending order where top_p is given."""
    floor = None if min_p is None else min_p * probs.amax(dim=-1, keepdim=True)
    if top_p is not None:
        # A token stays while the mass before it is under top_p, so that the first always stays.
        probs = probs.masked_fill(probs.cumsum(dim=-1) - probs >= top_p, 0)
    if floor is not None:
        probs = probs.masked_fill(probs < floor, 0)
    num = probs.shape[1]
    if num <= BLOCK_LEN:
        return _invert(probs, draws)
    # First a block, then a token in it: running sums of all, in float64, would take ten times as long as their sums.
    padded = pad(probs, (0, -num % BLOCK_LEN)) if num % BLOCK_LEN else probs
    blocks = padded.view(len(probs), -1, BLOCK_LEN)
    masses = blocks.sum(dim=-1)
    block = _invert(masses, draws)
    before = masses.cumsum(dim=-1, dtype=torch.float64).gather(1, block) - masses.gather(1, block)
    rest = (draws * masses.sum(dim=-1, keepdim=True, dtype=torch.float64) - before) / masses.gather(1, block)
    chosen = blocks.gather(1, block[:, :, None].expand(-1, -1, BLOCK_LEN)).squeeze(1)
    return block * BLOCK_LEN + _invert(chosen, rest.clamp(0, 1))


def _invert(weights: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Where `draws` [rows, 1], in [0, 1], fall in the distribution that weights [rows, n] stand for, in float64."""
    mass = weights.cumsum(dim=-1, dtype=torch.float64)
    total = mass[:, -1:].contiguous()
    # right=True skips what has no mass; the minimum keeps a draw that rounds up to the whole mass on a real token.
    return torch.minimum(torch.searchsorted(mass, draws * total, right=True), torch.searchsorted(mass, total))


def _alternatives(logprobs: torch.Tensor, samplers: Sequence[Sampler]) -> dict[int, tuple[tuple[int, float], ...]]:
    """By row, the most likely (id, log-probability) of rows that ask for them."""
    rows = [row for row, sampler in enumerate(samplers) if sampler.params.top_logprobs]
    if not rows:
        return {}
    wanted = logprobs if len(rows) == len(samplers) else logprobs[torch.tensor(rows, device=logprobs.device)]
    values, ids = wanted.topk(min(MAX_TOP_LOGPROBS, logprobs.shape[1]))
    pairs = zip(rows, ids.tolist(), values.tolist(), strict=True)
    return {
        row: tuple(zip(row_ids, row_values, strict=True))[: samplers[row].params.top_logprobs]
        for row, row_ids, row_values in pairs
    }


def _column(values: list[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None]
