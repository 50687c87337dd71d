"""Triton: the most likely token and its log-probability, in one pass over the logits.

A row is cut into chunks, which many processors read at once, and the chunks are merged. Random sampling stays in torch:
each request has its own seeded generator, whose numbers must be the same on every device, and the filters sort or
select, for which torch has its own kernels.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

CHUNK = 4096


def pick(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """See `reference.pick`. logits [B, V] may be a view whose last dimension is contiguous."""
    num_rows, vocab_size = logits.shape
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    token = torch.empty(num_rows, dtype=torch.int64, device=logits.device)
    logprob = torch.empty(num_rows, dtype=torch.float32, device=logits.device)
    chunk = min(CHUNK, triton.next_power_of_2(vocab_size))
    num_chunks = triton.cdiv(vocab_size, chunk)
    best = torch.empty(num_rows, num_chunks, dtype=torch.float32, device=logits.device)
    mass = torch.empty_like(best)
    place = torch.empty(num_rows, num_chunks, dtype=torch.int32, device=logits.device)
    if num_rows:
        chunk_kernel[(num_chunks, num_rows)](
            best, place, mass, logits, logits.stride(0), vocab_size, num_chunks, BN=chunk, num_warps=8
        )
        best_kernel[(num_rows,)](
            token, logprob, best, place, mass, num_chunks, BC=triton.next_power_of_2(num_chunks), num_warps=1
        )
    return token, logprob


@triton.jit
def chunk_kernel(best, place, mass, logits, stride, vocab_size, num_chunks, BN: tl.constexpr):
    i_chunk, i_row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    o_n = i_chunk * BN + tl.arange(0, BN)
    m_n = o_n < vocab_size
    b_x = tl.load(logits + i_row * stride + o_n, mask=m_n, other=float("-inf")).to(tl.float32)
    value = tl.max(b_x, 0)
    # If all logits are NaN, none equals the largest. The position must still be in the vocabulary.
    at = tl.minimum(tl.min(tl.where((b_x == value) & m_n, o_n, vocab_size), 0), vocab_size - 1)
    safe = tl.where(value == float("-inf"), 0.0, value)
    row = i_row * num_chunks + i_chunk
    tl.store(best + row, value)
    tl.store(place + row, at)
    tl.store(mass + row, tl.sum(tl.exp(b_x - safe), 0))


@triton.jit
def best_kernel(token, logprob, best, place, mass, num_chunks, BC: tl.constexpr):
    i_row = tl.program_id(0).to(tl.int64)
    o_c = tl.arange(0, BC)
    m_c = o_c < num_chunks
    b_best = tl.load(best + i_row * num_chunks + o_c, mask=m_c, other=float("-inf"))
    b_place = tl.load(place + i_row * num_chunks + o_c, mask=m_c, other=2147483647)
    b_mass = tl.load(mass + i_row * num_chunks + o_c, mask=m_c, other=0.0)
    value = tl.max(b_best, 0)
    # Of equal logits the first wins; of chunks of NaN too.
    at = tl.min(tl.where(b_best == value, b_place, 2147483647), 0)
    at = tl.where(at == 2147483647, tl.min(b_place, 0), at)
    total = tl.sum(b_mass * tl.exp(b_best - value), 0)
    tl.store(token + i_row, at.to(tl.int64))
    tl.store(logprob + i_row, -tl.log(total))
