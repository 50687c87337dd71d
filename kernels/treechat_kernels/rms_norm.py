"""Triton: RMS norm, with an optional residual added first in the same pass; weights per head or plus one."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    eps: float,
    *,
    residual: torch.Tensor | None = None,
    plus_one: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `reference.rms_norm`. The head dimension of x [T, H, N] may be a view; its last dimension is contiguous."""
    assert x.dim() in (2, 3), f"x has {x.dim()} dimensions"
    dim, num_heads = x.shape[-1], x.shape[1] if x.dim() == 3 else 1
    x = x if x.stride(-1) == 1 else x.contiguous()
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    summed = x
    if residual is not None:
        residual, summed = residual.contiguous(), torch.empty_like(out)
    block = triton.next_power_of_2(dim)
    if out.numel():
        rms_norm_kernel[(x.shape[0], num_heads)](
            out, summed, x, residual if residual is not None else x, weight if weight is not None else x,
            eps, x.stride(0), x.stride(1) if x.dim() == 3 else 0, num_heads,
            dim if weight is not None and weight.dim() == 2 else 0,
            N=dim, BN=block, RESIDUAL=residual is not None, WEIGHT=weight is not None, PLUS_ONE=plus_one,
            num_warps=min(16, max(1, block // 512)),
        )  # fmt: skip
    return out, summed


@triton.jit
def rms_norm_kernel(
    out,
    summed,
    x,
    residual,
    weight,
    eps,
    x_stride_t,
    x_stride_h,
    num_heads,
    weight_stride_h,
    N: tl.constexpr,
    BN: tl.constexpr,
    RESIDUAL: tl.constexpr,
    WEIGHT: tl.constexpr,
    PLUS_ONE: tl.constexpr,
):
    i_t, i_h = tl.program_id(0).to(tl.int64), tl.program_id(1)
    o_n = tl.arange(0, BN)
    m_n = o_n < N
    row = (i_t * num_heads + i_h) * N
    b_x = tl.load(x + i_t * x_stride_t + i_h * x_stride_h + o_n, mask=m_n, other=0.0)  # [BN]
    if RESIDUAL:
        b_r = tl.load(residual + row + o_n, mask=m_n, other=0.0)
        # Rounded as the stored sum, so the norm sees the residual of the next layer.
        b_x = (b_x.to(tl.float32) + b_r.to(tl.float32)).to(out.dtype.element_ty)
        tl.store(summed + row + o_n, b_x, mask=m_n)
    b_x = b_x.to(tl.float32)
    scale = tl.rsqrt(tl.sum(b_x * b_x, 0) / N + eps)
    b_y = b_x * scale
    if WEIGHT:
        b_w = tl.load(weight + i_h * weight_stride_h + o_n, mask=m_n, other=0.0).to(tl.float32)
        b_y *= b_w + 1.0 if PLUS_ONE else b_w
    tl.store(out + row + o_n, b_y.to(out.dtype.element_ty), mask=m_n)
