"""Triton: causal attention of several new tokens per path over the path's slots, their own included, ragged batch.

The rows of a tile belong to one key head: new tokens times the query heads that share it. So grouped heads read a key
once. Blocks of keys begin at fixed positions, so a token's result does not depend on how the prefill was cut.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from treechat_kernels.blocks import attend_block, block_dim, chip, precision
from treechat_kernels.layout import Layout, Paths
from treechat_kernels.tiles import Tile, TileKey, chosen_tile


def extend_attention(
    q: torch.Tensor,
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    slots: torch.Tensor,
    kv_lens: Sequence[int],
    q_lens: Sequence[int],
    *,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the attention [T, Hq, Dv] of q [T, Hq, Dk]; see `attention_reference.extend_attention`."""
    layout = Layout.build(kv_lens, q_lens, q.device)
    out = q.new_empty(q.shape[0], q.shape[1], v_pool.shape[2])
    for paths in (layout.single, layout.several):
        extend_paths(
            out, q, k_pool, v_pool, slots, layout, paths, scaling=scaling, sliding_window=sliding_window,
            softcap=softcap, sinks=sinks,
        )  # fmt: skip
    return out


def extend_paths(
    out: torch.Tensor,
    q: torch.Tensor,
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    slots: torch.Tensor,
    layout: Layout,
    paths: Paths,
    *,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> None:
    """Fill the rows of `out` [T, Hq, Dv] of the new tokens of `paths`."""
    if not paths.num:
        return
    assert q.stride(2) == k_pool.stride(2) == v_pool.stride(2) == 1, "the head dimension must be contiguous"
    group = q.shape[1] // k_pool.shape[1]
    dim, v_dim = q.shape[2], v_pool.shape[2]
    key = extend_key(block_dim(max(dim, v_dim)), q.dtype)
    tile = chosen_tile(key, fixed_tile(key))
    grid = (triton.cdiv(paths.max_q_len * group, tile.rows), k_pool.shape[1], paths.num)
    extend_kernel[grid](
        out, q, k_pool, v_pool, slots, layout.kv_starts, layout.kv_len_table, layout.q_starts, paths.indices,
        sinks if sinks is not None else q, scaling, softcap or 1.0, sliding_window or 0,
        q.stride(0), q.stride(1), k_pool.stride(0), k_pool.stride(1), v_pool.stride(0), v_pool.stride(1),
        out.stride(0), out.stride(1),
        GROUP=group, D=dim, DV=v_dim, BD=block_dim(dim), BDV=block_dim(v_dim), BM=tile.rows, BN=tile.keys,
        WINDOW=sliding_window is not None, SOFTCAP=softcap is not None, SINKS=sinks is not None,
        PRECISION=precision(q.dtype), num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip


def extend_key(padded_dim: int, dtype: torch.dtype) -> TileKey:
    """Return what the tile depends on."""
    return TileKey("extend", (dtype.itemsize, padded_dim))


def fixed_tile(key: TileKey) -> Tile:
    """Return the largest tile that fits the registers of all chips in `tests/bench/aot.py`."""
    itemsize, padded_dim = key.sizes
    if itemsize == 4:
        return Tile(32, 32, 4) if padded_dim <= 64 else Tile(16, 16, 8)
    if padded_dim > 128:
        return Tile(64, 32, 8)
    if chip() == 90:
        # The fastest that fit on an H100, for 512 new tokens on 16,384. Other chips have too few registers for them.
        return Tile(64, 64, 4, num_stages=3) if padded_dim > 64 else Tile(64, 128, 4)
    return Tile(64, 64, 8) if padded_dim > 64 else Tile(64, 64, 4, num_stages=3)


@triton.jit
def extend_kernel(
    out,
    q,
    k_pool,
    v_pool,
    slots,
    kv_starts,
    kv_lens,
    q_starts,
    paths,
    sinks,
    scaling,
    softcap,
    window,
    q_stride_t,
    q_stride_h,
    k_stride,
    k_stride_h,
    v_stride,
    v_stride_h,
    out_stride_t,
    out_stride_h,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    DV: tl.constexpr,
    BD: tl.constexpr,
    BDV: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    SINKS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    i_tile, i_h, i_path = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    i_seq = tl.load(paths + i_path)
    q_start = tl.load(q_starts + i_seq)
    kv_start = tl.load(kv_starts + i_seq)
    q_len = (tl.load(q_starts + i_seq + 1) - q_start).to(tl.int32)
    kv_len = tl.load(kv_lens + i_seq).to(tl.int32)
    if i_tile * BM < q_len * GROUP:
        o_row = i_tile * BM + tl.arange(0, BM)
        o_t, o_g = o_row // GROUP, o_row % GROUP
        o_d, o_dv = tl.arange(0, BD), tl.arange(0, BDV)
        m_row = o_t < q_len
        b_token = q_start + o_t  # [BM] int64
        b_head = i_h * GROUP + o_g
        b_q = tl.load(
            q + b_token[:, None] * q_stride_t + b_head[:, None] * q_stride_h + o_d[None, :],
            mask=m_row[:, None] & (o_d < D)[None, :],
            other=0.0,
        )  # [BM, BD]
        b_high = kv_len - q_len + o_t + 1
        b_low = tl.maximum(b_high - window, 0) if WINDOW else tl.zeros([BM], tl.int32)
        if SINKS:
            b_m = tl.load(sinks + b_head, mask=m_row, other=0.0).to(tl.float32) * 1.4426950408889634
            b_l = tl.full([BM], 1.0, tl.float32)
        else:
            b_m = tl.full([BM], float("-inf"), tl.float32)
            b_l = tl.zeros([BM], tl.float32)
        b_acc = tl.zeros([BM, BDV], tl.float32)
        first_t = i_tile * BM // GROUP
        last_t = tl.minimum((i_tile * BM + BM - 1) // GROUP, q_len - 1)
        kv_stop = kv_len - q_len + last_t + 1
        begin = 0
        if WINDOW:
            begin = tl.maximum(kv_len - q_len + first_t + 1 - window, 0) // BN * BN
        p_k, p_v = k_pool + i_h.to(tl.int64) * k_stride_h, v_pool + i_h.to(tl.int64) * v_stride_h
        for i_n in range(begin, kv_stop, BN):
            b_m, b_l, b_acc = attend_block(
                b_q, b_m, b_l, b_acc, p_k, p_v, slots + kv_start, i_n + tl.arange(0, BN), kv_stop, b_low, b_high,
                k_stride, v_stride, scaling, softcap, D, DV, BD, BDV, SOFTCAP, PRECISION,
            )  # fmt: skip
        # With a short window, rows after the last token see no key.
        b_l = tl.where(b_l == 0.0, 1.0, b_l)
        tl.store(
            out + b_token[:, None] * out_stride_t + b_head[:, None] * out_stride_h + o_dv[None, :],
            (b_acc / b_l[:, None]).to(out.dtype.element_ty),
            mask=m_row[:, None] & (o_dv < DV)[None, :],
        )
