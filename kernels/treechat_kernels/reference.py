"""The torch references of the small kernels. They run on any device without triton.

They compute in float32, or in the input's dtype if that is wider, and round once at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    eps: float,
    *,
    residual: torch.Tensor | None = None,
    plus_one: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x / rms(x) * weight over the last dimension, and the normed sum: x, or x + residual.

    x: [..., N].
    weight: [N], or [H, N] for x [..., H, N], or None for no weight.
    eps: added to the mean square.
    residual: shaped as x, added to it first.
    plus_one: multiply by 1 + weight instead.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    summed = x if residual is None else x + residual
    values = summed.to(wide)
    normed = values * torch.rsqrt(values.square().mean(-1, keepdim=True) + eps)
    if weight is not None:
        normed = normed * (weight.to(wide) + 1 if plus_one else weight.to(wide))
    return normed.to(x.dtype), summed


def rotary(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, interleaved: bool = False, table: str = "folded"
) -> torch.Tensor:
    """Return x [T, H, D] with its first R values per head rotated; the rest stay.

    interleaved: a value is paired with its neighbour; else with the value R / 2 away.
    table: the form of cos and sin, for angles theta [T, R / 2].
        "folded": [T, R], sin carries the rotation's sign: cat(-sin(theta), sin(theta)), alternating if interleaved.
        "whole": [T, R] without the sign.
        "half": [T, R / 2] without the sign.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    cos, sin = cos.to(wide), sin.to(wide)
    if table == "half":
        cos, sin = (t.repeat_interleave(2, -1) if interleaved else torch.cat([t, t], -1) for t in (cos, sin))
    width = cos.shape[-1]
    if table != "folded":
        place = torch.arange(width, device=sin.device)
        sin = torch.where(place % 2 == 0 if interleaved else place < width // 2, -sin, sin)
    turned = x[..., :width].to(wide)
    partner = (
        turned.reshape(*turned.shape[:2], -1, 2).flip(-1).flatten(-2) if interleaved else turned.roll(width // 2, -1)
    )
    turned = (turned * cos.unsqueeze(1) + partner * sin.unsqueeze(1)).to(x.dtype)
    return torch.cat([turned, x[..., width:]], dim=-1)


def silu_mul(gate_up: torch.Tensor, activation: str = "silu") -> torch.Tensor:
    """Return activation(gate) * up [T, N] of gate_up [T, 2 N], gates first. activation: silu, gelu or gelu_tanh."""
    gate, up = gate_up.chunk(2, dim=-1)
    return gate_mul(gate, up, activation)


def gate_mul(gate: torch.Tensor, up: torch.Tensor, activation: str = "silu") -> torch.Tensor:
    """Return activation(gate) * up [T, N] of two tensors [T, N]."""
    wide = torch.promote_types(gate.dtype, torch.float32)
    if activation == "silu":
        opened = torch.nn.functional.silu(gate.to(wide))
    else:
        approximate = "tanh" if activation == "gelu_tanh" else "none"
        opened = torch.nn.functional.gelu(gate.to(wide), approximate=approximate)
    return (opened * up.to(wide)).to(gate.dtype)


def linear_row(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    norm: tuple[torch.Tensor | None, float] | None = None,
    residual: torch.Tensor | None = None,
    gate: str | None = None,
) -> torch.Tensor:
    """Return a linear layer of one row: [1, out].

    x: [1, in].
    weight: [out, in].
    bias: [out].
    norm: weight and eps of an `rms_norm` of x before the layer.
    residual: [1, out], added at the end.
    gate: activation of a `silu_mul` after the layer, which halves out.
    """
    if norm is not None:
        x = rms_norm(x, *norm)[0]
    out = torch.nn.functional.linear(x, weight, bias)
    if gate is not None:
        out = silu_mul(out, gate)
    return out if residual is None else out + residual


def write_kv(k_pool: torch.Tensor, v_pool: torch.Tensor, k: torch.Tensor, v: torch.Tensor, slots: torch.Tensor) -> None:
    """Write k [T, Hkv, Dk] and v [T, Hkv, Dv] to `slots` [T] of the pools [S, Hkv, Dk] and [S, Hkv, Dv]."""
    k_pool.index_copy_(0, slots, k)
    v_pool.index_copy_(0, slots, v)


def rotate_and_write(
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    qk: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    slots: torch.Tensor,
) -> torch.Tensor:
    """Apply `rotary` to qk [T, Hq + Hkv, D], write keys and v [T, Hkv, D] to `slots` [T]; return q [T, Hq, D]."""
    turned = rotary(qk, cos, sin)
    num_q_heads = qk.shape[1] - v.shape[1]
    write_kv(k_pool, v_pool, turned[:, num_q_heads:], v, slots)
    return turned[:, :num_q_heads]


def gather_slots(pools: Sequence[torch.Tensor], slots: torch.Tensor) -> torch.Tensor:
    """Return the rows `slots` [n] of L pools [S, ...] of one shape as one block [L, n, ...], to be copied at once."""
    return torch.stack([pool.index_select(0, slots) for pool in pools])


def scatter_slots(pools: Sequence[torch.Tensor], slots: torch.Tensor, block: torch.Tensor) -> None:
    """Write block [L, n, ...] to the rows `slots` [n], all different, of L pools [S, ...]."""
    for pool, rows in zip(pools, block, strict=True):
        pool.index_copy_(0, slots, rows)


def pick(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the most likely token of each row of logits [B, V] and its log-probability: int64 [B], float32 [B].

    Of equal logits the lowest token id wins.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    best, token = wide.max(dim=-1)
    token = (wide == best.unsqueeze(-1)).int().argmax(dim=-1)
    return token, (best - wide.logsumexp(dim=-1)).to(torch.promote_types(torch.float32, wide.dtype))
