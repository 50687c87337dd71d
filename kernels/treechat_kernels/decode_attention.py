"""Triton: attention of one new token per path over scattered slots, split over the path's length.

One processor would walk a long path while the others idle. So each path is cut into splits, which give partial results
and the log-sum-exp of their scores, and a second kernel merges them (flash decoding). Splits begin at fixed positions
and are merged in order, so a path's result has the same bits whatever else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from treechat_kernels.blocks import attend_block, block_dim, chip, launch_options, precision, wait_for_inputs
from treechat_kernels.layout import SPLIT_LEN, Layout, Paths, SharedPrefix
from treechat_kernels.tiles import Tile, TileKey, chosen_tile

# Rows are splits and keys are values of a head, both per block of the merge. Batches with fewer splits do not get a
# smaller tile: the order of the sum, and so its last bit, would depend on the longest path of the batch.
FIXED_MERGE = Tile(256, 32, 4)


def decode_attention(
    q: torch.Tensor,
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    slots: torch.Tensor,
    kv_lens: Sequence[int],
    *,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the attention [B, Hq, Dv] of q [B, Hq, Dk]; see `attention_reference.decode_attention`."""
    layout = Layout.build(kv_lens, [1] * len(kv_lens), q.device)
    out = q.new_empty(q.shape[0], q.shape[1], v_pool.shape[2])
    decode_paths(
        out, q, k_pool, v_pool, slots, layout, layout.single, scaling=scaling, sliding_window=sliding_window,
        softcap=softcap, sinks=sinks,
    )  # fmt: skip
    return out


def decode_paths(
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
    """Fill the rows of `out` [T, Hq, Dv] of `paths`, whose sequences have one new token each."""
    if not paths.num:
        return
    parts = new_parts(q, v_pool, paths, layout)
    run_splits(parts, q, k_pool, v_pool, slots, layout, paths, None, scaling, sliding_window, softcap)
    merge_splits(out, parts, layout, paths, sliding_window, sinks)


def new_parts(q: torch.Tensor, v_pool: torch.Tensor, paths: Paths, layout: Layout) -> tuple[torch.Tensor, torch.Tensor]:
    """Return empty partial results [B, Hq, splits, Dv] and their log-sum-exps [B, Hq, splits], float32."""
    shape = (len(layout.kv_lens), q.shape[1], triton.cdiv(paths.max_kv_len, SPLIT_LEN))
    lse = torch.empty(shape, dtype=torch.float32, device=q.device)
    return torch.empty(*shape, v_pool.shape[2], dtype=torch.float32, device=q.device), lse


def run_splits(
    parts: tuple[torch.Tensor, torch.Tensor],
    q: torch.Tensor,
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    slots: torch.Tensor,
    layout: Layout,
    paths: Paths,
    prefix: SharedPrefix | None,
    scaling: float,
    sliding_window: int | None,
    softcap: float | None,
    shared: bool = False,
) -> None:
    """Fill the partial results of the splits after the prefix.

    With `shared`, fill those of the prefix instead and read its slots once for all of `paths`.
    """
    group = q.shape[1] // k_pool.shape[1]
    dim, v_dim = q.shape[2], v_pool.shape[2]
    assert q.stride(2) == k_pool.stride(2) == v_pool.stride(2) == 1, "the head dimension must be contiguous"
    num_rows = paths.num * group if shared else group
    key = split_key(num_rows, block_dim(max(dim, v_dim)), q.dtype)
    tile = chosen_tile(key, fixed_tile(key))
    num_splits = triton.cdiv(paths.max_kv_len, SPLIT_LEN)
    if shared and prefix is not None:
        num_splits = min(num_splits, prefix.prefix_len // SPLIT_LEN)
    elif sliding_window is not None:
        num_splits = min(num_splits, triton.cdiv(sliding_window, SPLIT_LEN) + 1)
    num_tiles = triton.cdiv(num_rows, tile.rows)
    grid = (num_tiles if shared else num_tiles * paths.num, k_pool.shape[1], num_splits)
    if num_splits == 0:
        return
    split_kernel[grid](
        parts[0], parts[1], q, k_pool, v_pool, slots, layout.kv_starts, layout.kv_len_table, layout.q_starts,
        paths.indices, prefix.num_splits if prefix is not None else layout.no_splits, paths.num, parts[1].shape[2],
        scaling, softcap or 1.0, sliding_window or 0,
        q.stride(0), q.stride(1), k_pool.stride(0), k_pool.stride(1), v_pool.stride(0), v_pool.stride(1), q.shape[1],
        GROUP=group, D=dim, DV=v_dim, BD=block_dim(dim), BDV=block_dim(v_dim), BM=tile.rows, BN=tile.keys,
        SPLIT=SPLIT_LEN, WINDOW=sliding_window is not None, SOFTCAP=softcap is not None, SHARED=shared,
        PRECISION=precision(q.dtype), num_warps=tile.num_warps, num_stages=tile.num_stages,
        maxnreg=tile.max_registers, **launch_options(),
    )  # fmt: skip


def merge_splits(
    out: torch.Tensor,
    parts: tuple[torch.Tensor, torch.Tensor],
    layout: Layout,
    paths: Paths,
    sliding_window: int | None,
    sinks: torch.Tensor | None,
) -> None:
    """Merge the partial results of `paths` into their rows of `out` [T, Hq, Dv]."""
    v_dim = out.shape[2]
    tile = chosen_tile(merge_key(v_dim), FIXED_MERGE)
    block = min(tile.keys, block_dim(v_dim))
    merge_kernel[(paths.num, out.shape[1], triton.cdiv(v_dim, block))](
        out, parts[0], parts[1], sinks if sinks is not None else parts[1], layout.kv_len_table, layout.q_starts,
        paths.indices, parts[1].shape[2], sliding_window or 0, out.stride(0), out.stride(1), out.shape[1],
        DV=v_dim, BDV=block, BS=tile.rows, SPLIT=SPLIT_LEN, WINDOW=sliding_window is not None,
        SINKS=sinks is not None, num_warps=tile.num_warps, **launch_options(),
    )  # fmt: skip


def split_key(num_rows: int, padded_dim: int, dtype: torch.dtype) -> TileKey:
    """Return what the tile of the split kernel depends on."""
    return TileKey("split", (dtype.itemsize, padded_dim, min(64, max(16, triton.next_power_of_2(num_rows)))))


def fixed_tile(key: TileKey) -> Tile:
    """Return the largest tile that fits the registers of all chips in `tests/bench/aot.py`."""
    itemsize, padded_dim, rows = key.sizes
    if itemsize == 4:
        return Tile(16, 32 if padded_dim <= 64 else 16, 4)
    if rows == 64 and padded_dim <= 128 and chip() == 90:
        return Tile(64, 64, 4, num_stages=3)
    if padded_dim > 128:
        return Tile(16 if rows == 16 else 32, 32, 4)
    if padded_dim > 64:
        return Tile(16, 64, 8) if rows == 16 else Tile(32, 32, 4, 224)
    return Tile(rows, 64, 4 if rows == 16 else 8)


def merge_key(v_dim: int) -> TileKey:
    """Return what the tile of the merge kernel depends on."""
    return TileKey("merge", (block_dim(v_dim),))


@triton.jit(do_not_specialize=["num_paths", "num_splits"])
def split_kernel(
    part,
    part_lse,
    q,
    k_pool,
    v_pool,
    slots,
    kv_starts,
    kv_lens,
    q_starts,
    paths,
    shared_splits,
    num_paths,
    num_splits,
    scaling,
    softcap,
    window,
    q_stride_t,
    q_stride_h,
    k_stride,
    k_stride_h,
    v_stride,
    v_stride_h,
    num_q_heads,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    DV: tl.constexpr,
    BD: tl.constexpr,
    BDV: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    SPLIT: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    SHARED: tl.constexpr,
    PRECISION: tl.constexpr,
    EARLY: tl.constexpr,
):
    wait_for_inputs(EARLY)
    i_tile, i_h, i_split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    o_m = tl.arange(0, BM)
    first_split = tl.load(shared_splits).to(tl.int32)
    if SHARED:
        # Rows are the heads of many paths. The keys are read through the slots of the first path.
        o_row = i_tile * BM + o_m
        o_path, o_g = o_row // GROUP, o_row % GROUP
        m_row = o_path < num_paths
        b_seq = tl.load(paths + o_path, mask=m_row, other=0)  # [BM]
        kv_start = tl.load(kv_starts + tl.load(paths))
        b_len = tl.load(kv_lens + b_seq, mask=m_row, other=0)
        # No path goes beyond the longest one; slots after it belong to no path.
        kv_stop = tl.minimum(tl.minimum(i_split + 1, first_split) * SPLIT, tl.max(b_len, 0).to(tl.int32))
    else:
        num_tiles: tl.constexpr = (GROUP + BM - 1) // BM
        o_g = (i_tile % num_tiles) * BM + o_m
        m_row = o_g < GROUP
        i_seq = tl.load(paths + i_tile // num_tiles)
        kv_start = tl.load(kv_starts + i_seq)
        kv_len = tl.load(kv_lens + i_seq).to(tl.int32)
        if WINDOW:
            first_split = tl.maximum(first_split, tl.maximum(kv_len - window, 0) // SPLIT)
        i_split += first_split
        b_seq = tl.zeros([BM], tl.int64) + i_seq
        b_len = tl.zeros([BM], tl.int64) + kv_len
        kv_stop = tl.minimum((i_split + 1) * SPLIT, kv_len)
    if i_split * SPLIT < kv_stop:
        o_d, o_dv = tl.arange(0, BD), tl.arange(0, BDV)
        b_head = i_h * GROUP + o_g
        b_token = tl.load(q_starts + b_seq, mask=m_row, other=0)
        b_q = tl.load(
            q + b_token[:, None] * q_stride_t + b_head[:, None] * q_stride_h + o_d[None, :],
            mask=m_row[:, None] & (o_d < D)[None, :],
            other=0.0,
        )  # [BM, BD]
        b_high = b_len.to(tl.int32)
        b_low = tl.maximum(b_high - window, 0) if WINDOW else tl.zeros([BM], tl.int32)
        b_m = tl.full([BM], float("-inf"), tl.float32)
        b_l = tl.zeros([BM], tl.float32)
        b_acc = tl.zeros([BM, BDV], tl.float32)
        p_k, p_v = k_pool + i_h.to(tl.int64) * k_stride_h, v_pool + i_h.to(tl.int64) * v_stride_h
        for i_n in range(i_split * SPLIT, kv_stop, BN):
            b_m, b_l, b_acc = attend_block(
                b_q, b_m, b_l, b_acc, p_k, p_v, slots + kv_start, i_n + tl.arange(0, BN), kv_stop, b_low, b_high,
                k_stride, v_stride, scaling, softcap, D, DV, BD, BDV, SOFTCAP, PRECISION,
            )  # fmt: skip
        # A row that saw no key (all before its window) has log-sum-exp -inf, so the merge ignores it.
        b_l_safe = tl.where(b_l == 0.0, 1.0, b_l)
        b_row = (b_seq * num_q_heads + b_head) * num_splits + i_split
        tl.store(part_lse + b_row, b_m + tl.log2(b_l_safe), mask=m_row)
        tl.store(
            part + b_row[:, None] * DV + o_dv[None, :],
            b_acc / b_l_safe[:, None],
            mask=m_row[:, None] & (o_dv < DV)[None, :],
        )


@triton.jit(do_not_specialize=["num_splits"])
def merge_kernel(
    out,
    part,
    part_lse,
    sinks,
    kv_lens,
    q_starts,
    paths,
    num_splits,
    window,
    out_stride_t,
    out_stride_h,
    num_q_heads,
    DV: tl.constexpr,
    BDV: tl.constexpr,
    BS: tl.constexpr,
    SPLIT: tl.constexpr,
    WINDOW: tl.constexpr,
    SINKS: tl.constexpr,
    EARLY: tl.constexpr,
):
    wait_for_inputs(EARLY)
    i_path, i_h = tl.program_id(0), tl.program_id(1)
    i_seq = tl.load(paths + i_path)
    kv_len = tl.load(kv_lens + i_seq).to(tl.int32)
    first = 0
    if WINDOW:
        first = tl.maximum(kv_len - window, 0) // SPLIT
    stop = tl.cdiv(kv_len, SPLIT)
    o_dv = tl.program_id(2) * BDV + tl.arange(0, BDV)
    row = (i_seq * num_q_heads + i_h) * num_splits
    b_acc = tl.zeros([BDV], tl.float32)
    if SINKS:
        m = tl.load(sinks + i_h).to(tl.float32) * 1.4426950408889634
        total = 1.0
    else:
        m = float("-inf")
        total = 0.0
    for i_s in range(first, stop, BS):
        o_s = i_s + tl.arange(0, BS)
        m_s = o_s < stop
        b_lse = tl.load(part_lse + row + o_s, mask=m_s, other=float("-inf"))  # [BS]
        b_part = tl.load(
            part + (row + o_s)[:, None] * DV + o_dv[None, :], mask=m_s[:, None] & (o_dv < DV)[None, :], other=0.0
        )  # [BS, BDV]
        m_new = tl.maximum(m, tl.max(b_lse, 0))
        b_w = tl.exp2(b_lse - m_new)
        scale = tl.exp2(m - m_new)
        b_acc = b_acc * scale + tl.sum(b_part * b_w[:, None], 0)
        total = total * scale + tl.sum(b_w, 0)
        m = m_new
    i_t = tl.load(q_starts + i_seq)
    tl.store(
        out + i_t * out_stride_t + i_h * out_stride_h + o_dv,
        (b_acc / total).to(out.dtype.element_ty),
        mask=o_dv < DV,
    )
