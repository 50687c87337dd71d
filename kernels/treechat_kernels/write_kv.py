"""Triton: write the keys and values of new tokens to their slots in one launch; may also rotate queries and keys."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from treechat_kernels.blocks import launch_options, wait_for_inputs


def write_kv(k_pool: torch.Tensor, v_pool: torch.Tensor, k: torch.Tensor, v: torch.Tensor, slots: torch.Tensor) -> None:
    """See `reference.write_kv`. k and v may be views; the pools are contiguous in their last two dimensions."""
    num_tokens, num_heads, k_dim = k.shape
    v_dim = v.shape[2]
    k = k if k.stride(2) == 1 else k.contiguous()
    v = v if v.stride(2) == 1 else v.contiguous()
    for pool in (k_pool, v_pool):
        assert pool.stride(2) == 1 and pool.stride(1) == pool.shape[2], f"strides of a pool are {pool.stride()}"
    block = min(1024, triton.next_power_of_2(num_heads * max(k_dim, v_dim)))
    blocks = triton.cdiv(num_heads * max(k_dim, v_dim), block)
    if num_tokens:
        write_kv_kernel[(num_tokens, blocks, 2)](
            k_pool, v_pool, k, v, slots, k_pool.stride(0), v_pool.stride(0), k.stride(0), k.stride(1), v.stride(0),
            v.stride(1), num_heads, DK=k_dim, DV=v_dim, BN=block, num_warps=2,
        )  # fmt: skip


@triton.jit
def write_row(pool_row, new_row, stride_h, num_heads, o_n, D: tl.constexpr):
    """Write one token: new_row [heads, D], heads `stride_h` apart, to pool_row [heads * D]."""
    m_n = o_n < num_heads * D
    b_new = tl.load(new_row + (o_n // D) * stride_h + o_n % D, mask=m_n, other=0.0)
    tl.store(pool_row + o_n, b_new.to(pool_row.dtype.element_ty), mask=m_n)


@triton.jit
def write_kv_kernel(
    k_pool,
    v_pool,
    k,
    v,
    slots,
    k_pool_stride,
    v_pool_stride,
    k_stride_t,
    k_stride_h,
    v_stride_t,
    v_stride_h,
    num_heads,
    DK: tl.constexpr,
    DV: tl.constexpr,
    BN: tl.constexpr,
):
    i_t = tl.program_id(0).to(tl.int64)
    o_n = tl.program_id(1) * BN + tl.arange(0, BN)
    i_slot = tl.load(slots + i_t).to(tl.int64)
    if tl.program_id(2) == 0:
        write_row(k_pool + i_slot * k_pool_stride, k + i_t * k_stride_t, k_stride_h, num_heads, o_n, DK)
    else:
        write_row(v_pool + i_slot * v_pool_stride, v + i_t * v_stride_t, v_stride_h, num_heads, o_n, DV)


def rotate_and_write(
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    qk: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    slots: torch.Tensor,
) -> torch.Tensor:
    """See `reference.rotate_and_write`. qk and v may be views whose last dimension is contiguous."""
    num_tokens, num_heads, dim = qk.shape
    num_kv_heads = v.shape[1]
    q = torch.empty(num_tokens, num_heads - num_kv_heads, dim, dtype=qk.dtype, device=qk.device)
    for pool in (k_pool, v_pool):
        assert pool.stride(2) == 1 and pool.stride(1) == dim, f"strides of a pool are {pool.stride()}"
    assert qk.stride(2) == v.stride(2) == cos.stride(1) == sin.stride(1) == 1, "rows must be contiguous"
    if num_tokens:
        rotate_and_write_kernel[(num_tokens, num_heads + num_kv_heads)](
            q, k_pool, v_pool, qk, v, cos, sin, slots, k_pool.stride(0), v_pool.stride(0), qk.stride(0), qk.stride(1),
            v.stride(0), v.stride(1), cos.stride(0), sin.stride(0), num_heads - num_kv_heads, num_kv_heads,
            D=dim, R=cos.shape[1], BD=triton.next_power_of_2(dim), num_warps=1, **launch_options(),
        )  # fmt: skip
    return q


@triton.jit
def rotate_and_write_kernel(
    q,
    k_pool,
    v_pool,
    qk,
    v,
    cos,
    sin,
    slots,
    k_pool_stride,
    v_pool_stride,
    qk_stride_t,
    qk_stride_h,
    v_stride_t,
    v_stride_h,
    cos_stride,
    sin_stride,
    num_q_heads,
    num_kv_heads,
    D: tl.constexpr,
    R: tl.constexpr,
    BD: tl.constexpr,
    EARLY: tl.constexpr,
):
    wait_for_inputs(EARLY)
    i_t, i_h = tl.program_id(0).to(tl.int64), tl.program_id(1)
    o_d = tl.arange(0, BD)
    m_d = o_d < D
    i_slot = tl.load(slots + i_t).to(tl.int64)
    num_turned = num_q_heads + num_kv_heads
    if i_h >= num_turned:
        i_v = i_h - num_turned
        b_v = tl.load(v + i_t * v_stride_t + i_v * v_stride_h + o_d, mask=m_d, other=0.0)
        tl.store(v_pool + i_slot * v_pool_stride + i_v * D + o_d, b_v.to(v_pool.dtype.element_ty), mask=m_d)
    else:
        m_r = o_d < R
        p_x = qk + i_t * qk_stride_t + i_h * qk_stride_h
        b_x = tl.load(p_x + o_d, mask=m_d, other=0.0)
        b_partner = tl.load(p_x + (o_d + R // 2) % R, mask=m_r, other=0.0).to(tl.float32)
        b_cos = tl.load(cos + i_t * cos_stride + o_d, mask=m_r, other=1.0).to(tl.float32)
        b_sin = tl.load(sin + i_t * sin_stride + o_d, mask=m_r, other=0.0).to(tl.float32)
        b_y = (b_x.to(tl.float32) * b_cos + b_partner * b_sin).to(q.dtype.element_ty)
        b_y = tl.where(m_r, b_y, b_x.to(q.dtype.element_ty))
        if i_h < num_q_heads:
            tl.store(q + (i_t * num_q_heads + i_h) * D + o_d, b_y, mask=m_d)
        else:
            p_k = k_pool + i_slot * k_pool_stride + (i_h - num_q_heads) * D + o_d
            tl.store(p_k, b_y.to(k_pool.dtype.element_ty), mask=m_d)
