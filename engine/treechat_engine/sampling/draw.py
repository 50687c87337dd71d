"""From probabilities and a number in [0, 1) to a token: inversion of the distribution function, row by row."""

from __future__ import annotations

import torch
from torch.nn.functional import pad

# A draw from more tokens than this first chooses a block of them.
BLOCK_LEN = 256


def draw(
    probs: torch.Tensor, draws: torch.Tensor, top_p: torch.Tensor | None, min_p: torch.Tensor | None
) -> torch.Tensor:
    """Return positions [rows, 1] drawn from probs [rows, n].

    probs: in descending order if top_p is given.
    draws: [rows, 1], numbers in [0, 1), float64.
    top_p: [rows, 1]; None: not used.
    min_p: [rows, 1]; None: not used.
    """
    floor = None if min_p is None else min_p * probs.amax(dim=-1, keepdim=True)
    if top_p is not None:
        # A token stays if the mass before it is under top_p, so the first always stays.
        probs = probs.masked_fill(probs.cumsum(dim=-1) - probs >= top_p, 0)
    if floor is not None:
        probs = probs.masked_fill(probs < floor, 0)
    num = probs.shape[1]
    if num <= BLOCK_LEN:
        return invert(probs, draws)
    # First choose a block, then a token in it. Running sums of all tokens in float64 take ten times as long as the
    # blocks' sums.
    padded = pad(probs, (0, -num % BLOCK_LEN)) if num % BLOCK_LEN else probs
    blocks = padded.view(len(probs), -1, BLOCK_LEN)
    masses = blocks.sum(dim=-1)
    block = invert(masses, draws)
    before = masses.cumsum(dim=-1, dtype=torch.float64).gather(1, block) - masses.gather(1, block)
    rest = (draws * masses.sum(dim=-1, keepdim=True, dtype=torch.float64) - before) / masses.gather(1, block)
    chosen = blocks.gather(1, block[:, :, None].expand(-1, -1, BLOCK_LEN)).squeeze(1)
    return block * BLOCK_LEN + invert(chosen, rest.clamp(0, 1))


def invert(weights: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Return the positions of `draws` [rows, 1], in [0, 1], in the distribution of weights [rows, n], in float64."""
    mass = weights.cumsum(dim=-1, dtype=torch.float64)
    total = mass[:, -1:].contiguous()
    # right=True skips tokens without mass. If a draw rounds up to the whole mass, the minimum keeps it on a token that
    # has mass.
    found = torch.minimum(torch.searchsorted(mass, draws * total, right=True), torch.searchsorted(mass, total))
    # Weights that are not numbers still give a position; the caller detects them.
    return found.clamp(max=weights.shape[1] - 1)
