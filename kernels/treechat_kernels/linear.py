"""Triton: a linear layer of one row, with bias, residual, or the gate of a gated MLP in the same pass.

One row reads each weight once and multiplies it once: what counts is to keep many loads in flight, for which matrix
libraries are not made. On an H100 cuBLAS took 1.05 to 1.8 times as long, most where the matrix is small.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from treechat_kernels.silu_mul import ACTIVATIONS, activate


def linear_row(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    residual: torch.Tensor | None = None,
    gate: str | None = None,
) -> torch.Tensor:
    """As `reference.linear_row`."""
    out_len, in_len = weight.shape
    assert x.shape == (1, in_len), f"x is {tuple(x.shape)} for a weight of {tuple(weight.shape)}"
    assert weight.stride(1) == 1, "the weight's rows must be contiguous"
    x = x.contiguous()
    num = out_len // 2 if gate else out_len
    out = torch.empty(1, num, dtype=x.dtype, device=x.device)
    rows, keys, num_warps = (2, 1024, 1) if in_len <= 1024 else (1, 1024, 4)
    linear_row_kernel[(triton.cdiv(num, rows),)](
        out, x, weight, bias if bias is not None else x, residual.contiguous() if residual is not None else x,
        num, weight.stride(0), K=in_len, BN=rows, BK=keys, BIAS=bias is not None, RESIDUAL=residual is not None,
        GATE=gate is not None, ACTIVATION=ACTIVATIONS[gate] if gate else 0, num_warps=num_warps, num_stages=2,
    )  # fmt: skip
    return out


@triton.jit
def row_products(x, p_weight, m_n, K: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """The dot products [BN] of x [K] with the rows at p_weight [BN]."""
    o_k = tl.arange(0, BK)
    b_acc = tl.zeros([BN, BK], tl.float32)
    for i_k in range(0, K, BK):
        m_k = i_k + o_k < K
        b_x = tl.load(x + i_k + o_k, mask=m_k, other=0.0).to(tl.float32)
        b_w = tl.load(p_weight[:, None] + (i_k + o_k)[None, :], mask=m_n[:, None] & m_k[None, :], other=0.0)
        b_acc += b_x[None, :] * b_w.to(tl.float32)
    return tl.sum(b_acc, 1)


@triton.jit
def linear_row_kernel(
    out,
    x,
    weight,
    bias,
    residual,
    num,
    weight_stride,
    K: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    GATE: tl.constexpr,
    ACTIVATION: tl.constexpr,
):
    o_n = tl.program_id(0) * BN + tl.arange(0, BN)
    m_n = o_n < num
    b_y = row_products(x, weight + o_n.to(tl.int64) * weight_stride, m_n, K, BN, BK)
    if BIAS:
        b_y += tl.load(bias + o_n, mask=m_n, other=0.0).to(tl.float32)
    if GATE:
        o_up = o_n.to(tl.int64) + num
        b_up = row_products(x, weight + o_up * weight_stride, m_n, K, BN, BK)
        if BIAS:
            b_up += tl.load(bias + o_up, mask=m_n, other=0.0).to(tl.float32)
        # Rounded as they are where the gate is a kernel of its own.
        b_up = b_up.to(out.dtype.element_ty).to(tl.float32)
        b_y = activate(b_y.to(out.dtype.element_ty).to(tl.float32), ACTIVATION) * b_up
    if RESIDUAL:
        b_y += tl.load(residual + o_n, mask=m_n, other=0.0).to(tl.float32)
    tl.store(out + o_n, b_y.to(out.dtype.element_ty), mask=m_n)
