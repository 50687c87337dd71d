"""Sampling inside a CUDA graph: one pass over the batch without synchronising with the host.

The next step can therefore be launched before the chosen tokens are known. Each row is penalised, cut and drawn from as
in `sampling/`, with numbers that the host draws ahead. Only the likeliest tokens are sorted. If a row keeps more
tokens, the pass reports it, and the host chooses from the step's logits. The penalties of a request's history are a row
over the vocabulary on the device, and each step adds its chosen token. The host rewrites the row when it launches a
step whose tokens it knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import torch

from treechat_engine.sampling.draw import draw, invert
from treechat_engine.sampling.sampler import NUM_LIKELY, Sampler
from treechat_kernels import dispatch

# Columns of the table: those of SamplingParams, and the drawn number.
_TEMPERATURE, _TOP_K, _TOP_P, _MIN_P, _REPETITION, _PRESENCE, _FREQUENCY, _DRAW = range(8)
_GREEDY = (0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0)


def is_drawable(sampler: Sampler) -> bool:
    """Return whether a graph can choose the request's tokens."""
    return not sampler.params.top_logprobs and sampler.cut.top_k <= NUM_LIKELY


class SamplingMode(IntEnum):
    """How a graph chooses the tokens of a step: the most likely, a draw, or a draw after penalties and biases."""

    GREEDY = 0
    DRAWN = 1
    PENALIZED = 2

    @classmethod
    def of(cls, samplers: Sequence[Sampler]) -> SamplingMode:
        if any(sampler.history or sampler.bias for sampler in samplers):
            return cls.PENALIZED
        return cls.GREEDY if all(sampler.cut.greedy for sampler in samplers) else cls.DRAWN


class DrawTable:
    """How each row of a step samples, on the device."""

    def __init__(self, max_batch: int, vocab_size: int, device: torch.device) -> None:
        self._columns = torch.zeros(8, max_batch, dtype=torch.float64, device=device)
        self._shape = max_batch, vocab_size
        # [max_batch, vocabulary], allocated at the first penalty: tokens counted by the repetition penalty, tokens of
        # the reply, and the amount subtracted from each logit.
        self._seen = torch.empty(0, dtype=torch.bool, device=device)
        self._is_in_reply, self._drops = torch.empty_like(self._seen), torch.empty_like(self._seen, dtype=torch.float32)

    def prepare(self, mode: SamplingMode) -> None:
        """Allocate the tables that graphs of this mode read."""
        if mode == SamplingMode.PENALIZED and not self._seen.numel():
            self._seen, self._is_in_reply = (self._seen.new_zeros(self._shape) for _ in range(2))
            self._drops = self._drops.new_zeros(self._shape)

    def fill(self, samplers: Sequence[Sampler], num_rows: int, mode: SamplingMode) -> None:
        """Write the rows of these samplers, with their next numbers. Greedy rows pad them to num_rows."""
        rows = [_row(sampler) for sampler in samplers] + [_GREEDY] * (num_rows - len(samplers))
        self._columns[:, :num_rows] = self._to_device(torch.tensor(rows, dtype=torch.float64).T.contiguous())
        if mode != SamplingMode.PENALIZED:
            return
        for table in (self._seen, self._is_in_reply, self._drops):
            table[:num_rows].zero_()
        for row, sampler in enumerate(samplers):
            if sampler.history is not None:
                ids = self._to_device(torch.from_numpy(sampler.history.ids.copy()))
                self._seen[row].index_fill_(0, ids, True)
                self._drops[row].index_copy_(0, ids, self._to_device(torch.from_numpy(sampler.history.drops.copy())))
                reply_ids = torch.tensor(sorted(sampler.history.reply_ids), dtype=torch.int64)
                self._is_in_reply[row].index_fill_(0, self._to_device(reply_ids), True)
            if sampler.bias is not None:
                ids, values = torch.from_numpy(sampler.bias.ids), torch.from_numpy(-sampler.bias.values)
                self._drops[row].index_add_(0, self._to_device(ids), self._to_device(values))

    def fill_ahead(self, samplers: Sequence[Sampler]) -> None:
        """Write the numbers for the step after one whose tokens are not recorded yet."""
        numbers = [0.0 if sampler.cut.greedy else sampler.peek(1) for sampler in samplers]
        self._columns[_DRAW, : len(samplers)] = self._to_device(torch.tensor(numbers, dtype=torch.float64))

    def choose(
        self, logits: torch.Tensor, best: torch.Tensor, best_logprob: torch.Tensor, mode: SamplingMode
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the ids chosen [B], their log-probabilities [B], and whether each row is settled [B].

        A row is settled if this is the choice that its parameters require.

        logits: [B, vocabulary].
        best: [B], the likeliest id of each row.
        best_logprob: [B], its log-probability.
        mode: the mode of the graph.
        """
        logits = logits.float()
        columns = self._columns[:, : len(logits), None]
        if mode == SamplingMode.PENALIZED:
            penalized = self._penalize(logits, columns)
            chosen, is_settled = self._choose(penalized, columns, dispatch.pick(penalized)[0])
            self._record(chosen, columns)
        else:
            chosen, is_settled = self._choose(logits, columns, best)
        logprob = logits.gather(1, chosen) - logits.gather(1, best[:, None]) + best_logprob[:, None]
        return chosen.squeeze(1), logprob.squeeze(1), is_settled.squeeze(1)

    def _choose(
        self, logits: torch.Tensor, columns: torch.Tensor, best: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids [B, 1], and whether each is settled [B, 1]."""
        temperature, draws = columns[_TEMPERATURE].float(), columns[_DRAW].contiguous()
        top_k, top_p, min_p = columns[_TOP_K].long(), columns[_TOP_P].float(), columns[_MIN_P].float()
        is_greedy, has_k, has_p = temperature == 0, top_k > 0, top_p < 1
        probs = (logits / torch.where(is_greedy, 1.0, temperature)).softmax(dim=-1)

        num_likely = min(NUM_LIKELY, logits.shape[1])
        ids = logits.topk(num_likely).indices
        likely = probs.gather(1, ids)
        among = likely.cumsum(dim=-1).gather(1, (top_k - 1).clamp(0, num_likely - 1))
        likely = torch.where(has_k, likely / among, likely)
        mass = likely.cumsum(dim=-1)
        floor = min_p * likely[:, :1]
        ranks = torch.arange(num_likely, device=logits.device)
        is_cut = (has_k & (ranks >= top_k)) | (has_p & (mass - likely >= top_p)) | (likely < floor)
        cut = ids.gather(1, invert(likely.masked_fill(is_cut, 0), draws))

        is_whole = ~(has_k | has_p | (min_p > 0))
        chosen = torch.where(is_whole, draw(probs, draws, None, None), cut)
        chosen = torch.where(is_greedy, best[:, None], chosen)
        # A cut among the likeliest tokens removes all other tokens.
        ends = (has_p & (mass[:, -1:] >= top_p)) | (likely[:, -1:] < floor)
        is_settled = is_greedy | is_whole | has_k | ends
        if num_likely == logits.shape[1]:
            is_settled = torch.ones_like(is_settled)
        return chosen, is_settled

    def _penalize(self, logits: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        num_rows, factor = len(logits), columns[_REPETITION].float()
        repeated = torch.where(logits < 0, logits * factor, logits / factor)
        return torch.where(self._seen[:num_rows], repeated, logits) - self._drops[:num_rows]

    def _record(self, chosen: torch.Tensor, columns: torch.Tensor) -> None:
        """Count the ids [B, 1] for the next step."""
        num_rows = len(chosen)
        is_in_reply, drops = self._is_in_reply[:num_rows], self._drops[:num_rows]
        is_new = ~is_in_reply.gather(1, chosen)
        drops.scatter_add_(1, chosen, (columns[_FREQUENCY] + columns[_PRESENCE] * is_new).float())
        is_in_reply.scatter_(1, chosen, True)
        self._seen[:num_rows].scatter_(1, chosen, True)

    def _to_device(self, values: torch.Tensor) -> torch.Tensor:
        pinned = values.pin_memory() if self._columns.is_cuda else values
        return pinned.to(self._columns.device, non_blocking=True)


def _row(sampler: Sampler) -> tuple[float, ...]:
    params = sampler.params
    penalties = params.repetition_penalty, params.presence_penalty, params.frequency_penalty
    if sampler.cut.greedy:
        return (*_GREEDY[:_REPETITION], *penalties, 0.0)
    return (params.temperature, float(sampler.cut.top_k), params.top_p, params.min_p, *penalties, sampler.peek(0))
