"""Triton: rotary embedding of queries and keys in one pass; whole or partial, pairing halves or neighbours."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


def rotary(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, interleaved: bool = False, table: str = "folded"
) -> torch.Tensor:
    """See `reference.rotary`. x [T, H, D] may be a view whose last dimension is contiguous."""
    num_tokens, num_heads, dim = x.shape
    x = x if x.stride(2) == 1 else x.contiguous()
    cos = cos if cos.stride(1) == 1 else cos.contiguous()
    sin = sin if sin.stride(1) == 1 else sin.contiguous()
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    block_h = min(8, triton.next_power_of_2(num_heads))
    if out.numel():
        rotary_kernel[(num_tokens, triton.cdiv(num_heads, block_h))](
            out, x, cos, sin, x.stride(0), x.stride(1), cos.stride(0), sin.stride(0), num_heads,
            D=dim, R=cos.shape[1] * (2 if table == "half" else 1), BH=block_h, BD=triton.next_power_of_2(dim),
            INTERLEAVED=interleaved, HALF=table == "half", FOLDED=table == "folded", num_warps=2,
        )  # fmt: skip
    return out


@triton.jit
def rotary_kernel(
    out,
    x,
    cos,
    sin,
    x_stride_t,
    x_stride_h,
    cos_stride,
    sin_stride,
    num_heads,
    D: tl.constexpr,
    R: tl.constexpr,
    BH: tl.constexpr,
    BD: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    HALF: tl.constexpr,
    FOLDED: tl.constexpr,
):
    i_t = tl.program_id(0).to(tl.int64)
    o_h = tl.program_id(1) * BH + tl.arange(0, BH)
    o_d = tl.arange(0, BD)
    m_r = o_d < R
    m_x = (o_h < num_heads)[:, None] & (o_d < D)[None, :]
    m_turned = (o_h < num_heads)[:, None] & m_r[None, :]
    if INTERLEAVED:
        o_partner, o_pair, m_first = o_d ^ 1, o_d // 2, o_d % 2 == 0
    else:
        o_partner, o_pair, m_first = (o_d + R // 2) % R, o_d % (R // 2), o_d < R // 2
    o_table = o_pair if HALF else o_d
    p_x = x + i_t * x_stride_t + o_h[:, None] * x_stride_h
    b_x = tl.load(p_x + o_d[None, :], mask=m_x, other=0.0)  # [BH, BD]
    b_partner = tl.load(p_x + o_partner[None, :], mask=m_turned, other=0.0).to(tl.float32)
    b_cos = tl.load(cos + i_t * cos_stride + o_table, mask=m_r, other=1.0).to(tl.float32)
    b_sin = tl.load(sin + i_t * sin_stride + o_table, mask=m_r, other=0.0).to(tl.float32)
    if not FOLDED:
        b_sin = tl.where(m_first, -b_sin, b_sin)
    b_y = b_x.to(tl.float32) * b_cos[None, :] + b_partner * b_sin[None, :]
    tl.store(
        out + (i_t * num_heads + o_h[:, None]) * D + o_d[None, :],
        tl.where(m_r[None, :], b_y.to(out.dtype.element_ty), b_x),
        mask=m_x,
    )
