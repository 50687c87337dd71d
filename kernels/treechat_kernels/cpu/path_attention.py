"""CPU attention over a path whose slots lie in a few contiguous extents: views of the pool, no gather.

Each extent gives a partial result and the log-sum-exp of its scores; the merge weighs them, which is exact. Reading the
pool in place moves a third of the bytes of gathering it first (read, write, read again).
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
    """A stretch of a path: `views` are (first slot, length) read in place, `gathered` are the slots of the rest."""

    views: tuple[Extent, ...]
    gathered: torch.Tensor | None


def clip_extents(extents: Sequence[Extent], start: int, stop: int) -> list[Extent]:
    """The positions [start, stop) of a path whose slots are these extents of (first slot, length), as extents."""
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
    """The slots of the extents in order, int64 on the CPU."""
    return torch.from_numpy(np.concatenate([np.arange(first, first + n, dtype=np.int64) for first, n in extents]))


def plan_reads(extents: Sequence[Extent], start: int, stop: int) -> PathReads:
    """The positions [start, stop) of a path, cut into long extents to view and the rest to gather."""
    clipped = clip_extents(extents, start, stop)
    short = [extent for extent in clipped if extent[1] < MIN_VIEW_LEN]
    if len(short) < 2:
        return PathReads(tuple(clipped), None)
    return PathReads(tuple(extent for extent in clipped if extent[1] >= MIN_VIEW_LEN), slot_tensor(short))


def plan_gathered_reads(extents: Sequence[Extent], start: int, stop: int) -> PathReads:
    """The positions [start, stop) of a path, all gathered: the result does not depend on where the slots lie."""
    clipped = clip_extents(extents, start, stop)
    return PathReads((), slot_tensor(clipped) if clipped else None)


def view_extent(pool: torch.Tensor, first: int, length: int) -> torch.Tensor:
    """An extent of the pool [S, Hkv, D] as [1, Hkv, length, D], in one operation: an eager decode makes thousands."""
    return view_chunks(pool, first, length, 1)


def view_chunks(pool: torch.Tensor, first: int, length: int, chunks: int) -> torch.Tensor:
    """An extent of the pool [S, Hkv, D] as `chunks` equal parts [chunks, Hkv, length / chunks, D]."""
    row, head, element = pool.stride()
    _, num_heads, dim = pool.shape
    part = length // chunks
    offset = pool.storage_offset() + first * row
    return pool.as_strided((chunks, num_heads, part, dim), (part * row, head, row, element), offset)


def take_slots(pool: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Copies of slots [n] of the pool [S, Hkv, D], as [Hkv, n, D]."""
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
    """Attention of the new tokens q [1, Hq, n, D] of one path, result [1, n, Hq, D]. Keys and values have one width D.

    reads: what every new token sees, as slots of k_pool and v_pool [S, Hkv, D], in any layout.
    own: keys and values [1, Hkv, n, D] of the new tokens themselves, seen causally; None where reads hold them, n = 1.
    """
    _, num_q_heads, q_len, dim = q.shape
    num_kv_heads = k_pool.shape[1]
    if q_len == 1:
        # The heads of a group see the same keys: as if they were query tokens of one head.
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
    """Weighs partial results by their share of the softmax's denominator; a sink takes a share and gives nothing."""
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
