"""The parts that attention kernels share: one block of keys and values in a running softmax, and launch options.

Scores are logarithms to base 2, since the hardware computes exp2. The maximum of a row that has seen no key is -inf.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from treechat_kernels.tiles import launches_early

# Under the interpreter `tl.dot` multiplies the bits of bfloat16 operands as integers, so `dot` converts them first.
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


def chip() -> int:
    """Return the compute capability of the device in use (90 for sm_90), or 0 under the interpreter."""
    return 0 if INTERPRETED.value else int(triton.runtime.driver.active.get_current_target().arch)


def launch_options() -> dict[str, Any]:
    """Return launch arguments for a kernel that calls `wait_for_inputs` before it writes or reads another's output."""
    return {"EARLY": True, "launch_pdl": True} if launches_early() else {"EARLY": False}


def block_dim(dim: int) -> int:
    """Return the head dimension padded to a power of two, at least the 16 that a matrix unit needs."""
    return max(16, 1 << (dim - 1).bit_length())


def precision(dtype: torch.dtype) -> str:
    """Return the precision of matrix products. float32 stays float32: the default rounds it to 10 bits of mantissa."""
    return "ieee" if dtype == torch.float32 else "tf32"


@triton.jit
def wait_for_inputs(EARLY: tl.constexpr):
    """If kernels are launched early: let the next kernel start, then wait until the previous one is done.

    Every block of every kernel calls this, so a finished kernel implies that all kernels before it are finished. Before
    the call a kernel may read only data that no kernel writes, such as weights.
    """
    if EARLY and not INTERPRETED:
        gdc_launch_dependents()
        gdc_wait()


@triton.jit
def dot(a, b, PRECISION: tl.constexpr):
    """Return a @ b in float32. Both operands have one dtype."""
    if INTERPRETED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def attend_block(
    b_q,  # [BM, BD]
    b_m,  # [BM] largest score so far
    b_l,  # [BM] sum of the weights so far
    b_acc,  # [BM, BDV] weighted sum of the values so far
    p_k,  # the key of this head in slot 0
    p_v,
    p_slots,  # slot of the path's first token
    o_n,  # [BN] positions of the keys
    kv_stop,  # keys from here on are not read
    b_low,  # [BM] first position that a row sees
    b_high,  # [BM] first position after those that a row sees
    k_stride,
    v_stride,
    scaling,
    softcap,
    D: tl.constexpr,
    DV: tl.constexpr,
    BD: tl.constexpr,
    BDV: tl.constexpr,
    SOFTCAP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    o_d = tl.arange(0, BD)
    o_dv = tl.arange(0, BDV)
    m_n = o_n < kv_stop
    b_slot = tl.load(p_slots + o_n, mask=m_n, other=0).to(tl.int64)
    b_k = tl.load(
        p_k + b_slot[None, :] * k_stride + o_d[:, None], mask=m_n[None, :] & (o_d < D)[:, None], other=0.0
    )  # [BD, BN]
    b_s = dot(b_q, b_k, PRECISION) * scaling  # [BM, BN]
    if SOFTCAP:
        # tanh(x) = 2 sigmoid(2x) - 1. Every backend has sigmoid.
        b_s = softcap * (2.0 * tl.sigmoid(2.0 * (b_s / softcap)) - 1.0)
    m_s = m_n[None, :] & (o_n[None, :] >= b_low[:, None]) & (o_n[None, :] < b_high[:, None])
    b_s = tl.where(m_s, b_s * 1.4426950408889634, float("-inf"))
    b_m_new = tl.maximum(b_m, tl.max(b_s, 1))
    # For a row that has seen no key, -inf - -inf would be NaN.
    b_m_safe = tl.where(b_m_new == float("-inf"), 0.0, b_m_new)
    b_p = tl.exp2(b_s - b_m_safe[:, None])
    b_scale = tl.exp2(b_m - b_m_safe)
    b_v = tl.load(
        p_v + b_slot[:, None] * v_stride + o_dv[None, :], mask=m_n[:, None] & (o_dv < DV)[None, :], other=0.0
    )  # [BN, BDV]
    b_l = b_l * b_scale + tl.sum(b_p, 1)
    b_acc = b_acc * b_scale[:, None] + dot(b_p.to(b_v.dtype), b_v, PRECISION)
    return b_m_new, b_l, b_acc
