"""Triton: the most likely token and its log-probability in one reading of the logits.

That is all of sampling that is here. Drawing stays in torch: each request has its own seeded generator, whose numbers
must be the same on every device, and its filters sort or select, which torch does with kernels of its own.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl


def pick(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `reference.pick`. logits [B, V] may be a view whose last dimension is contiguous."""
    num_rows, vocab_size = logits.shape
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    token = torch.empty(num_rows, dtype=torch.int64, device=logits.device)
    logprob = torch.empty(num_rows, dtype=torch.float32, device=logits.device)
    if num_rows:
        pick_kernel[(num_rows,)](
            token, logprob, logits, logits.stride(0), vocab_size,
            BN=min(4096, triton.next_power_of_2(vocab_size)), num_warps=8,
        )  # fmt: skip
    return token, logprob


@triton.jit
def pick_kernel(token, logprob, logits, stride, vocab_size, BN: tl.constexpr):
    i_row = tl.program_id(0).to(tl.int64)
    best = float("-inf")
    best_token = 0
    b_m = tl.full([BN], float("-inf"), tl.float32)
    b_l = tl.zeros([BN], tl.float32)
    for i_n in range(0, vocab_size, BN):
        o_n = i_n + tl.arange(0, BN)
        b_x = tl.load(logits + i_row * stride + o_n, mask=o_n < vocab_size, other=float("-inf")).to(tl.float32)
        value = tl.max(b_x, 0)
        at = i_n + tl.min(tl.where(b_x == value, tl.arange(0, BN), BN), 0)
        # Strictly more: of equal logits the first stays.
        best_token = tl.where(value > best, at, best_token)
        best = tl.maximum(best, value)
        b_m_new = tl.maximum(b_m, b_x)
        b_safe = tl.where(b_m_new == float("-inf"), 0.0, b_m_new)
        b_l = b_l * tl.exp(b_m - b_safe) + tl.exp(b_x - b_safe)
        b_m = b_m_new
    total = tl.sum(b_l * tl.exp(b_m - best), 0)
    tl.store(token + i_row, best_token)
    tl.store(logprob + i_row, -tl.log(total))
