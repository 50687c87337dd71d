"""Triton: the keys and values of new tokens to their slots, both in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


def write_kv(k_pool: torch.Tensor, v_pool: torch.Tensor, k: torch.Tensor, v: torch.Tensor, slots: torch.Tensor) -> None:
    """As `reference.write_kv`. k and v may be views; the pools are contiguous in their last two dimensions."""
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
    """One token: new_row [heads, D], heads `stride_h` apart, to pool_row [heads * D]."""
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
