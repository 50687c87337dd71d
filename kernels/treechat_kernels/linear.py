"""Triton: a linear layer of one row, with a norm before it, bias, residual or the gate of an MLP in the same pass.

One row reads each weight once and multiplies it once, so the speed depends on keeping many loads in flight. Matrix
libraries are not designed for that; `tests/bench/gpu.py` measures both.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from treechat_kernels.blocks import launch_options, wait_for_inputs
from treechat_kernels.rms_norm import rms_norm
from treechat_kernels.silu_mul import ACTIVATIONS, activate
from treechat_kernels.tiles import Tile, TileKey, chosen_tile

# The longest row that is normed in the same pass.
MAX_NORMED = 1024


def linear_row(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    norm: tuple[torch.Tensor | None, float] | None = None,
    residual: torch.Tensor | None = None,
    gate: str | None = None,
) -> torch.Tensor:
    """See `reference.linear_row`. Each block norms x again; a long x is normed by a separate kernel instead."""
    out_len, in_len = weight.shape
    assert x.shape == (1, in_len), f"x is {tuple(x.shape)} for a weight of {tuple(weight.shape)}"
    assert weight.stride(1) == 1, "the weight's rows must be contiguous"
    x = x.contiguous()
    num = out_len // 2 if gate else out_len
    out = torch.empty(1, num, dtype=x.dtype, device=x.device)
    if norm is not None and in_len > MAX_NORMED:
        x, norm = rms_norm(x, *norm)[0], None
    norm_weight, eps = norm if norm is not None else (None, 0.0)
    key = linear_key(in_len, gate is not None)
    tile = chosen_tile(key, fixed_tile(key))
    linear_row_kernel[(triton.cdiv(num, tile.rows),)](
        out, x, weight, bias if bias is not None else x, residual.contiguous() if residual is not None else x,
        norm_weight if norm_weight is not None else x, eps, num, weight.stride(0),
        K=in_len, BN=tile.rows, BK=tile.keys, BIAS=bias is not None, RESIDUAL=residual is not None,
        NORM=norm is not None, NORM_WEIGHT=norm_weight is not None, GATE=gate is not None,
        ACTIVATION=ACTIVATIONS[gate] if gate else 0, num_warps=tile.num_warps, num_stages=tile.num_stages,
        **launch_options(),
    )  # fmt: skip
    return out


def linear_key(in_len: int, is_gated: bool) -> TileKey:
    """Return what the tile depends on."""
    return TileKey("linear", (in_len, int(is_gated)))


def fixed_tile(key: TileKey) -> Tile:
    """Return the fastest tile on an H100."""
    in_len, _ = key.sizes
    return Tile(2, 1024, 2) if in_len <= 1024 else Tile(1, 1024, 8)


@triton.jit
def weights_at(p_weight, m_n, i_k, K: tl.constexpr, BK: tl.constexpr):
    """Load the weights [BN, BK] of the rows at p_weight [BN], from column i_k on."""
    o_k = i_k + tl.arange(0, BK)
    return tl.load(p_weight[:, None] + o_k[None, :], mask=m_n[:, None] & (o_k < K)[None, :], other=0.0)


@triton.jit
def row_products(x, b_x, b_w, p_weight, m_n, K: tl.constexpr, BK: tl.constexpr):
    """Return the dot products [BN] of x [K] with the rows at p_weight [BN]. b_x, b_w: the first block of both."""
    b_acc = b_x[None, :] * b_w.to(tl.float32)
    for i_k in range(BK, K, BK):
        o_k = i_k + tl.arange(0, BK)
        b_next = weights_at(p_weight, m_n, i_k, K, BK).to(tl.float32)
        b_acc += tl.load(x + o_k, mask=o_k < K, other=0.0).to(tl.float32)[None, :] * b_next
    return tl.sum(b_acc, 1)


@triton.jit
def linear_row_kernel(
    out,
    x,
    weight,
    bias,
    residual,
    norm_weight,
    eps,
    num,
    weight_stride,
    K: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    NORM: tl.constexpr,
    NORM_WEIGHT: tl.constexpr,
    GATE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    EARLY: tl.constexpr,
):
    o_n = tl.program_id(0) * BN + tl.arange(0, BN)
    m_n = o_n < num
    o_k = tl.arange(0, BK)
    # Loaded while the kernel waits for x and norms it. This is safe: no kernel writes weights.
    p_weight = weight + o_n.to(tl.int64) * weight_stride
    p_up = weight + (o_n.to(tl.int64) + num) * weight_stride
    b_w = weights_at(p_weight, m_n, 0, K, BK)
    b_w_up = weights_at(p_up, m_n, 0, K, BK) if GATE else b_w
    if NORM_WEIGHT:
        b_norm = tl.load(norm_weight + o_k, mask=o_k < K, other=0.0).to(tl.float32)
    wait_for_inputs(EARLY)
    b_x = tl.load(x + o_k, mask=o_k < K, other=0.0).to(tl.float32)
    if NORM:
        b_x *= tl.rsqrt(tl.sum(b_x * b_x, 0) / K + eps)
        if NORM_WEIGHT:
            b_x *= b_norm
        # Rounded, as the separate norm kernel does.
        b_x = b_x.to(out.dtype.element_ty).to(tl.float32)
    b_y = row_products(x, b_x, b_w, p_weight, m_n, K, BK)
    if BIAS:
        b_y += tl.load(bias + o_n, mask=m_n, other=0.0).to(tl.float32)
    if GATE:
        b_up = row_products(x, b_x, b_w_up, p_up, m_n, K, BK)
        if BIAS:
            b_up += tl.load(bias + o_n + num, mask=m_n, other=0.0).to(tl.float32)
        b_up = b_up.to(out.dtype.element_ty).to(tl.float32)
        b_y = activate(b_y.to(out.dtype.element_ty).to(tl.float32), ACTIVATION) * b_up
    if RESIDUAL:
        b_y += tl.load(residual + o_n, mask=m_n, other=0.0).to(tl.float32)
    tl.store(out + o_n, b_y.to(out.dtype.element_ty), mask=m_n)
