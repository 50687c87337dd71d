"""Triton: the activation of an MLP's gate times its other half, in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

ACTIVATIONS = {"silu": 0, "gelu": 1, "gelu_tanh": 2}


def silu_mul(gate_up: torch.Tensor, activation: str = "silu") -> torch.Tensor:
    """See `reference.silu_mul`. gate_up [T, 2 N] may be a view whose last dimension is contiguous."""
    gate, up = gate_up.chunk(2, dim=-1)
    return gate_mul(gate, up, activation)


def gate_mul(gate: torch.Tensor, up: torch.Tensor, activation: str = "silu") -> torch.Tensor:
    """See `reference.gate_mul`. Both [T, N] may be views whose last dimension is contiguous."""
    num_tokens, dim = gate.shape
    gate = gate if gate.stride(1) == 1 else gate.contiguous()
    up = up if up.stride(1) == 1 else up.contiguous()
    out = torch.empty(num_tokens, dim, dtype=gate.dtype, device=gate.device)
    block = min(1024, triton.next_power_of_2(dim))
    if out.numel():
        silu_mul_kernel[(num_tokens, triton.cdiv(dim, block))](
            out, gate, up, gate.stride(0), up.stride(0), dim, ACTIVATION=ACTIVATIONS[activation], BN=block, num_warps=4
        )
    return out


@triton.jit
def activate(b_gate, ACTIVATION: tl.constexpr):
    if ACTIVATION == 0:
        b_gate = b_gate * tl.sigmoid(b_gate)
    elif ACTIVATION == 1:
        b_gate = 0.5 * b_gate * (1.0 + tl.erf(b_gate * 0.7071067811865476))
    else:
        # 0.5 (1 + tanh(y)) is sigmoid(2y).
        b_y = 0.7978845608028654 * (b_gate + 0.044715 * b_gate * b_gate * b_gate)
        b_gate = b_gate * tl.sigmoid(2.0 * b_y)
    return b_gate


@triton.jit
def silu_mul_kernel(out, gate, up, gate_stride, up_stride, dim, ACTIVATION: tl.constexpr, BN: tl.constexpr):
    i_t = tl.program_id(0).to(tl.int64)
    o_n = tl.program_id(1) * BN + tl.arange(0, BN)
    m_n = o_n < dim
    b_gate = tl.load(gate + i_t * gate_stride + o_n, mask=m_n, other=0.0).to(tl.float32)
    b_up = tl.load(up + i_t * up_stride + o_n, mask=m_n, other=0.0).to(tl.float32)
    b_gate = activate(b_gate, ACTIVATION)
    tl.store(out + i_t * dim + o_n, (b_gate * b_up).to(out.dtype.element_ty), mask=m_n)
