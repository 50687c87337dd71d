"""CPU attention over a path whose slots lie in a few extents: views of the pool, no gather.

Each extent gives a partial result and the log-sum-exp of its scores, and the merge weights them; this is exact. Reading
the pool in place moves a third of the bytes that gathering first does (read, write, read again).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from treechat_kernels.layout import Extent

# Tokens. Shorter extents are gathered together, since a kernel call for each costs tens of microseconds. Chosen on a
# busy 2-core machine: eight extents of 8 to 128 tokens were faster gathered, two took the same time either way.
MIN_VIEW_LEN = 64

flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


class PathReads(NamedTuple):
    """How a stretch of a path is read: the extents `views` in place, the slots `gathered` by copying."""

    views: tuple[Extent, ...]
    gathered: torch.Tensor | None


def clip_extents(extents: Sequence[Extent], start: int, stop: int) -> list[Extent]:
    """Return the extents of the positions [start, stop) of a path whose slots are `extents`."""
    clipped: list[Extent] = []
    position = 0
    for first, length in extents:
        if position >= stop:
            break
        low, high = max(start, position), min(stop, position + length)
        if low < high:
            clipped.append((first + low - position, high - low))
        position += length
    return clipped


def slot_tensor(extents: Sequence[Extent]) -> torch.Tensor:
    """Return the slots of the extents in order, int64 on the CPU."""
    return torch.from_numpy(np.concatenate([np.arange(first, first + n, dtype=np.int64) for first, n in extents]))


def plan_reads(extents: Sequence[Extent], start: int, stop: int) -> PathReads:
    """Plan to read the positions [start, stop) of a path: long extents as views, two or more short ones gathered."""
    clipped = clip_extents(extents, start, stop)
    short = [extent for extent in clipped if extent[1] < MIN_VIEW_LEN]
    if len(short) < 2:
        return PathReads(tuple(clipped), None)
    return PathReads(tuple(extent for extent in clipped if extent[1] >= MIN_VIEW_LEN), slot_tensor(short))


def plan_gathered_reads(extents: Sequence[Extent], start: int, stop: int) -> PathReads:
    """Plan to gather all positions [start, stop) of a path, so the result does not depend on where its slots lie."""
    clipped = clip_extents(extents, start, stop)
    return PathReads((), slot_tensor(clipped) if clipped else None)


def view_extent(pool: torch.Tensor, first: int, length: int) -> torch.Tensor:
    """Return an extent of the pool [S, Hkv, D] as a view [1, Hkv, length, D].

    One operation does it: an eager decoding step makes thousands of these views.
    """
    return view_chunks(pool, first, length, 1)


def view_chunks(pool: torch.Tensor, first: int, length: int, chunks: int) -> torch.Tensor:
    """Return an extent of the pool [S, Hkv, D] as a view of equal parts [chunks, Hkv, length / chunks, D]."""
    row, head, element = pool.stride()
    _, num_heads, dim = pool.shape
    part = length // chunks
    offset = pool.storage_offset() + first * row
    return pool.as_strided((chunks, num_heads, part, dim), (part * row, head, row, element), offset)


def take_slots(pool: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Return copies of the slots [n] of the pool [S, Hkv, D], as [Hkv, n, D]."""
    return pool.transpose(0, 1).index_select(1, slots)


def path_attention(
    q: torch.Tensor,
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    reads: PathReads,
    own: tuple[torch.Tensor, torch.Tensor] | None,
    *,
    scaling: float,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the attention [1, n, Hq, D] of the new tokens of one path. Keys and values have one width D.

    q: [1, Hq, n, D].
    k_pool, v_pool: [S, Hkv, D], in any layout.
    reads: the slots that every new token sees.
    own: keys and values [1, Hkv, n, D] of the new tokens, seen causally; None if n = 1 and `reads` includes them.
    scaling: multiplies the scores.
    sinks: [Hq], the score of one more key per head, which has no value.
    """
    _, num_q_heads, q_len, dim = q.shape
    num_kv_heads = k_pool.shape[1]
    if q_len == 1:
        # The heads of a group see the same keys, so they take the place of query tokens of one head.
        q = q.reshape(1, num_kv_heads, num_q_heads // num_kv_heads, dim)
    parts = [
        flash(q, view_extent(k_pool, *extent), view_extent(v_pool, *extent), 0.0, False, attn_mask=None, scale=scaling)
        for extent in reads.views
    ]
    if reads.gathered is not None:
        k, v = (take_slots(pool, reads.gathered).unsqueeze(0) for pool in (k_pool, v_pool))
        parts.append(flash(q, k, v, 0.0, False, attn_mask=None, scale=scaling))
    if own is not None:
        parts.append(flash(q, *own, 0.0, True, attn_mask=None, scale=scaling))
    out = parts[0][0] if len(parts) == 1 and sinks is None else _merge(parts, sinks, q_len)
    return out.reshape(1, 1, num_q_heads, dim) if q_len == 1 else out.transpose(1, 2)


def _merge(parts: list[tuple[torch.Tensor, torch.Tensor]], sinks: torch.Tensor | None, q_len: int) -> torch.Tensor:
    """Merge partial results, weighted by their shares of the softmax's denominator. A sink has a share but no value."""
    lses = [lse for _, lse in parts]
    if sinks is not None:
        lse = lses[0]
        # When decoding, the heads of a group take the place of query tokens.
        sink = sinks.float().view(1, lse.shape[1], -1) if q_len == 1 else sinks.float().view(1, -1, 1)
        lses.append(sink.expand_as(lse))
    weights = torch.stack(lses).softmax(dim=0).unsqueeze(-1)
    merged = parts[0][0].float() * weights[0]
    for (out, _), weight in zip(parts[1:], weights[1:], strict=False):
        merged = torch.addcmul(merged, out.float(), weight)
    return merged.to(parts[0][0].dtype)
