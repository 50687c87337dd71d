"""What the attention kernels share: one block of keys and values worked into a running softmax, and launch constants.

Scores are kept in units of log 2, since the hardware has exp2. A row that has seen no key yet has maximum -inf.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from treechat_kernels.tiles import launches_early

# The interpreter multiplies the bits of bfloat16 matrices as integers.
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


def chip() -> int:
    """Compute capability of the device that kernels are launched on, 90 for sm_90; 0 under the interpreter."""
    return 0 if INTERPRETED.value else int(triton.runtime.driver.active.get_current_target().arch)


def launch_options() -> dict[str, Any]:
    """Arguments of a launch whose kernel calls `wait_for_inputs` before it reads what another wrote, or writes."""
    return {"EARLY": True, "launch_pdl": True} if launches_early() else {"EARLY": False}


def block_dim(dim: int) -> int:
    """A head dimension as the power of two that a tile has, at least the 16 that a matrix unit takes."""
    return max(16, 1 << (dim - 1).bit_length())


def precision(dtype: torch.dtype) -> str:
    """float32 is computed in float32: the default would round to 10 bits of mantissa."""
    return "ieee" if dtype == torch.float32 else "tf32"


@triton.jit
def wait_for_inputs(EARLY: tl.constexpr):
    """Where kernels are launched early: lets the next one start, then waits until the one before is done.

    Every block calls it, so that a kernel that is done says that all before it are. Only what no kernel writes, such as
    weights, may be read sooner.
    """
    if EARLY and not INTERPRETED:
        gdc_launch_dependents()
        gdc_wait()


@triton.jit
def dot(a, b, PRECISION: tl.constexpr):
    """a @ b in float32, of operands of one dtype."""
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
    b_high,  # [BM] first position that a row does not see any more
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
        # tanh(x) = 2 sigmoid(2x) - 1, which every backend has.
        b_s = softcap * (2.0 * tl.sigmoid(2.0 * (b_s / softcap)) - 1.0)
    m_s = m_n[None, :] & (o_n[None, :] >= b_low[:, None]) & (o_n[None, :] < b_high[:, None])
    b_s = tl.where(m_s, b_s * 1.4426950408889634, float("-inf"))
    b_m_new = tl.maximum(b_m, tl.max(b_s, 1))
    # A row that sees nothing yet: -inf less -inf is no number.
    b_m_safe = tl.where(b_m_new == float("-inf"), 0.0, b_m_new)
    b_p = tl.exp2(b_s - b_m_safe[:, None])
    b_scale = tl.exp2(b_m - b_m_safe)
    b_v = tl.load(
        p_v + b_slot[:, None] * v_stride + o_dv[None, :], mask=m_n[:, None] & (o_dv < DV)[None, :], other=0.0
    )  # [BN, BDV]
    b_l = b_l * b_scale + tl.sum(b_p, 1)
    b_acc = b_acc * b_scale[:, None] + dot(b_p.to(b_v.dtype), b_v, PRECISION)
    return b_m_new, b_l, b_acc
