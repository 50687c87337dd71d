"""CPU attention over a path whose slots lie in a few contiguous runs: views of the pool, no gather.

Each run gives a partial result and the log-sum-exp of its scores; the merge weighs them, which is exact. Reading the
pool in place moves a third of the bytes of gathering it first (read, write, read again).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

# Below this length a run costs more as a kernel call of its own (about 40 us) than gathered with its like.
MIN_VIEW_LEN = 64

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


class Pieces(NamedTuple):
    """A stretch of a path: `views` are (first slot, length) read in place, `gathered` are the slots of the rest."""

    views: tuple[tuple[int, int], ...]
    gathered: torch.Tensor | None


def clip_runs(runs: Sequence[tuple[int, int]], start: int, stop: int) -> list[tuple[int, int]]:
    """The positions [start, stop) of a path whose slots are these runs of (first slot, length), as runs."""
    clipped: list[tuple[int, int]] = []
    position = 0
    for first, length in runs:
        if position >= stop:
            break
        low, high = max(start, position), min(stop, position + length)
        if low < high:
            clipped.append((first + low - position, high - low))
        position += length
    return clipped


def slot_tensor(runs: Sequence[tuple[int, int]]) -> torch.Tensor:
    """The slots of the runs in order, int64 on the CPU."""
    return torch.cat([torch.arange(first, first + length) for first, length in runs])


def cut_pieces(runs: Sequence[tuple[int, int]], start: int, stop: int) -> Pieces:
    """The positions [start, stop) of a path, cut into long runs to view and the rest to gather."""
    clipped = clip_runs(runs, start, stop)
    short = [run for run in clipped if run[1] < MIN_VIEW_LEN]
    if len(short) < 2:
        return Pieces(tuple(clipped), None)
    return Pieces(tuple(run for run in clipped if run[1] >= MIN_VIEW_LEN), slot_tensor(short))


def path_attention(
    q: torch.Tensor,
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    pieces: Pieces,
    own: tuple[torch.Tensor, torch.Tensor] | None,
    *,
    scaling: float,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of the new tokens q [n, Hq, D] of one path, result [n, Hq, D]. Keys and values have the same width D.

    pieces: what every new token sees, as slots of k_pool and v_pool [S, Hkv, D].
    own: keys and values [n, Hkv, D] of the new tokens themselves, seen causally; None where pieces holds them (n = 1).
    """
    q_len, num_q_heads, dim = q.shape
    num_kv_heads = k_pool.shape[1]
    if q_len == 1:
        heads_first = q.reshape(1, num_kv_heads, num_q_heads // num_kv_heads, dim)
    else:
        heads_first = q.transpose(0, 1).unsqueeze(0)
    parts = []
    for first, length in pieces.views:
        k = k_pool.narrow(0, first, length)
        v = v_pool.narrow(0, first, length)
        parts.append(_attend(heads_first, k, v, scaling, False))
    if pieces.gathered is not None:
        k = k_pool.index_select(0, pieces.gathered)
        v = v_pool.index_select(0, pieces.gathered)
        parts.append(_attend(heads_first, k, v, scaling, False))
    if own is not None:
        parts.append(_attend(heads_first, *own, scaling, True))
    out = _merge(parts, sinks, q_len)
    if q_len == 1:
        return out.reshape(1, num_q_heads, dim)
    return out[0].transpose(0, 1)


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scaling: float, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [1, H, n, D] against k, v [m, Hkv, D] -> (out [1, H, n, D], log-sum-exp of the scores [1, H, n])."""
    k, v = k.transpose(0, 1).unsqueeze(0), v.transpose(0, 1).unsqueeze(0)
    out, lse = _flash(q, k, v, 0.0, causal, attn_mask=None, scale=scaling)
    return out, lse


def _merge(parts: list[tuple[torch.Tensor, torch.Tensor]], sinks: torch.Tensor | None, q_len: int) -> torch.Tensor:
    """Weighs partial results by their share of the softmax's denominator; a sink takes a share and gives nothing."""
    if len(parts) == 1 and sinks is None:
        return parts[0][0]
    lses = [lse for _, lse in parts]
    if sinks is not None:
        lse = lses[0]
        # In a decode the group of heads lies where the query tokens would be.
        sink = sinks.float().view(1, lse.shape[1], -1) if q_len == 1 else sinks.float().view(1, -1, 1)
        lses.append(sink.expand_as(lse))
    weights = torch.stack(lses).softmax(dim=0).unsqueeze(-1)
    merged = parts[0][0].float() * weights[0]
    for (out, _), weight in zip(parts[1:], weights[1:], strict=False):
        merged = torch.addcmul(merged, out.float(), weight)
    return merged.to(parts[0][0].dtype)
