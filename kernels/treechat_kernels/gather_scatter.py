"""Triton: move rows of all layers' pools into one block and back, so the host tier copies once.

The kernel takes the pools' addresses, so one launch serves all layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl


def gather_slots(pools: Sequence[torch.Tensor], slots: torch.Tensor) -> torch.Tensor:
    """See `reference.gather_slots`. The pools are contiguous and of one shape and dtype."""
    block = pools[0].new_empty(len(pools), slots.shape[0], *pools[0].shape[1:])
    _move(pools, slots, block, gather=True)
    return block


def scatter_slots(pools: Sequence[torch.Tensor], slots: torch.Tensor, block: torch.Tensor) -> None:
    """See `reference.scatter_slots`. The pools are contiguous and of one shape and dtype."""
    _move(pools, slots, block.contiguous(), gather=False)


def _move(pools: Sequence[torch.Tensor], slots: torch.Tensor, block: torch.Tensor, gather: bool) -> None:
    first, num_slots = pools[0], slots.shape[0]
    for pool in pools:
        assert pool.is_contiguous() and pool.shape == first.shape and pool.dtype == first.dtype, "pools differ"
    assert block.shape == (len(pools), num_slots, *first.shape[1:]), f"a block of {tuple(block.shape)}"
    addresses = torch.tensor([pool.data_ptr() for pool in pools], dtype=torch.int64).to(first.device)
    row_len = first[0].numel()
    size = min(1024, triton.next_power_of_2(row_len))
    if num_slots:
        move_kernel[(num_slots, len(pools), triton.cdiv(row_len, size))](
            block, addresses, slots, num_slots, N=row_len, BN=size, GATHER=gather, num_warps=4
        )


@triton.jit(do_not_specialize=["num_slots"])
def move_kernel(block, addresses, slots, num_slots, N: tl.constexpr, BN: tl.constexpr, GATHER: tl.constexpr):
    i_s, i_layer = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    o_n = tl.program_id(2) * BN + tl.arange(0, BN)
    m_n = o_n < N
    pool = tl.load(addresses + i_layer).to(tl.pointer_type(block.dtype.element_ty))
    p_pool = pool + tl.load(slots + i_s).to(tl.int64) * N + o_n
    p_block = block + (i_layer * num_slots + i_s) * N + o_n
    if GATHER:
        tl.store(p_block, tl.load(p_pool, mask=m_n, other=0.0), mask=m_n)
    else:
        tl.store(p_pool, tl.load(p_block, mask=m_n, other=0.0), mask=m_n)
