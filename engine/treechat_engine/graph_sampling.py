"""Sampling inside a CUDA graph: one pass over the batch that asks the host nothing, so that the step after it can be
launched before anybody knows what was chosen.

Each row is cut and drawn from as in `sampling.py`, with numbers that the host draws ahead. Only the likeliest
tokens are sorted; where a row keeps more of them the pass says so, and the host chooses from the step's logits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from treechat_engine.drawing import draw, invert
from treechat_engine.sampling import NUM_LIKELY, Sampler

# Columns of the table: those of SamplingParams, and the number that decides.
_TEMPERATURE, _TOP_K, _TOP_P, _MIN_P, _DRAW = range(5)
_GREEDY = (0.0, 0.0, 1.0, 0.0, 0.0)


def is_drawable(sampler: Sampler) -> bool:
    """Whether a graph can choose the request's tokens."""
    return sampler.is_simple and sampler.cut.top_k <= NUM_LIKELY


class DrawTable:
    """How each row of a step samples, on the device."""

    def __init__(self, max_batch: int, device: torch.device) -> None:
        self._columns = torch.zeros(5, max_batch, dtype=torch.float64, device=device)

    def fill(self, samplers: Sequence[Sampler], num_rows: int) -> None:
        """Rows of these samplers, with their next numbers; padded by greedy ones to num_rows."""
        rows = [_row(sampler) for sampler in samplers] + [_GREEDY] * (num_rows - len(samplers))
        self._columns[:, :num_rows] = self._to_device(torch.tensor(rows, dtype=torch.float64).T.contiguous())

    def fill_ahead(self, samplers: Sequence[Sampler]) -> None:
        """The numbers for the step after one whose tokens are not recorded yet."""
        numbers = [0.0 if sampler.cut.greedy else sampler.peek(1) for sampler in samplers]
        self._columns[_DRAW, : len(samplers)] = self._to_device(torch.tensor(numbers, dtype=torch.float64))

    def choose(
        self, logits: torch.Tensor, best: torch.Tensor, best_logprob: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """logits [B, vocabulary], the likeliest id of each row [B] and its log-probability [B], to the ids chosen [B],
        their log-probabilities [B], and whether that is what the row's parameters ask for [B]."""
        logits = logits.float()
        columns = self._columns[:, : len(logits), None]
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
        # A cut that falls among the likeliest leaves none of the others.
        ends = (has_p & (mass[:, -1:] >= top_p)) | (likely[:, -1:] < floor)
        is_settled = is_greedy | is_whole | has_k | ends
        if num_likely == logits.shape[1]:
            is_settled = torch.ones_like(is_settled)
        logprob = logits.gather(1, chosen) - logits.gather(1, best[:, None]) + best_logprob[:, None]
        return chosen.squeeze(1), logprob.squeeze(1), is_settled.squeeze(1)

    def _to_device(self, values: torch.Tensor) -> torch.Tensor:
        staged = values.pin_memory() if self._columns.is_cuda else values
        return staged.to(self._columns.device, non_blocking=True)


def _row(sampler: Sampler) -> tuple[float, ...]:
    if sampler.cut.greedy:
        return _GREEDY
    params = sampler.params
    return (params.temperature, float(sampler.cut.top_k), params.top_p, params.min_p, sampler.peek(0))
