"""The host tier: KV of evicted prefixes in host memory, and the copies to it and back.

A row of the host pool is the whole KV of one token, all layers side by side, so that an extent is one copy. On CUDA the
pool is pinned and copies run on their own stream. The device gathers slots into blocks, which are copied to the host
while the next forward computes. That forward waits until the last block is gathered, or until its own KV is restored.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from treechat_engine.kvcache.radix_node import Ints
from treechat_engine.kvcache.slots import FreeSlots, SlotPool, extents_of, sorted_extents
from treechat_kernels import dispatch

# Bytes of a block in a copy. It needs device memory beside the pool, which takes most of it.
BLOCK_BYTES = 256 << 20
# Slots in more extents than this are copied by index.
MAX_EXTENTS = 8


class PoolRows:
    """The KV of a pool's slots as rows [n, width], one per token: keys and values of each layer in turn."""

    def __init__(self, pool: SlotPool) -> None:
        self._layers = [rows for pair in zip(pool.k, pool.v, strict=True) for rows in pair]
        self.dtype = self._layers[0].dtype
        self.device = self._layers[0].device
        self.width = sum(rows[0].numel() for rows in self._layers)
        # One launch copies all layers if they have the same shape.
        self.is_one_launch = dispatch.uses_tables(self.device) and len({rows.shape for rows in self._layers}) == 1

    def gather(self, slots: Ints) -> torch.Tensor:
        """Return the rows of `slots`, a new tensor on the pool's device."""
        if self.is_one_launch:
            block = dispatch.gather_slots(self._layers, _index_tensor(slots, self.device))
            return block.flatten(2).transpose(0, 1).reshape(len(slots), self.width)
        rows = torch.empty(len(slots), self.width, dtype=self.dtype, device=self.device)
        extents = extents_of(slots)
        index = _index_tensor(slots, self.device) if len(extents) > MAX_EXTENTS else None
        for layer, columns in self._columns(rows):
            if index is not None:
                columns.copy_(layer[index])
                continue
            for at, (start, length) in _with_offsets(extents):
                columns[at : at + length] = layer[start : start + length]
        return rows

    def scatter(self, slots: Ints, rows: torch.Tensor) -> None:
        """Write rows [n, width] on the pool's device into `slots`."""
        if self.is_one_launch:
            block = rows.view(len(slots), len(self._layers), *self._layers[0].shape[1:]).transpose(0, 1)
            dispatch.scatter_slots(self._layers, _index_tensor(slots, self.device), block)
            return
        extents = extents_of(slots)
        index = _index_tensor(slots, self.device) if len(extents) > MAX_EXTENTS else None
        for layer, columns in self._columns(rows):
            if index is not None:
                layer.index_copy_(0, index, columns)
                continue
            for at, (start, length) in _with_offsets(extents):
                layer[start : start + length] = columns[at : at + length]

    def _columns(self, rows: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield each layer's keys and values, with their part [n, heads, dim] of `rows`."""
        start = 0
        for layer in self._layers:
            stop = start + layer[0].numel()
            yield layer, rows[:, start:stop].view(len(rows), *layer.shape[1:])
            start = stop


def _with_offsets(extents: Sequence[tuple[int, int]]) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield the extents, each with the number of slots before it."""
    at = 0
    for extent in extents:
        yield at, extent
        at += extent[1]


def _index_tensor(slots: Ints, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.array(slots, dtype=np.int64)).to(device, non_blocking=True)


class HostPool:
    """`num_slots` tokens in host memory. With `poison`, free rows are NaN, for tests."""

    def __init__(self, rows: PoolRows, num_slots: int, poison: bool = False) -> None:
        self.num_slots = num_slots
        self.poison = poison
        self._on_device = rows
        on_cuda = rows.device.type == "cuda"
        self.rows = torch.empty(num_slots, rows.width, dtype=rows.dtype, pin_memory=on_cuda)
        self._stream = torch.cuda.Stream(rows.device) if on_cuda else None  # type: ignore[no-untyped-call]
        self._free = FreeSlots(num_slots)
        if poison:
            self.rows.fill_(float("nan"))

    @property
    def num_free(self) -> int:
        return self._free.num_free

    def allocate(self, n: int) -> Ints:
        """Return `n` free slots. The caller checks that there are as many."""
        slots = array("q")
        for start, length in self._free.take(n):
            slots.extend(range(start, start + length))
        return slots

    def free(self, slots: Sequence[int]) -> None:
        """Free `slots`. Asserts that none is already free."""
        for start, length in sorted_extents(slots):
            self._free.give(start, length)
            if self.poison:
                self.wait()
                self.rows[start : start + length].fill_(float("nan"))

    def store(self, device_slots: Ints, host_slots: Ints) -> None:
        """Copy from the device. The device slots may be reused at once: later writes wait for the copy."""
        with self._copy_stream() as compute:
            for part in self._blocks(len(device_slots)):
                block = self._on_device.gather(device_slots[part])
                if self._stream is not None and compute is not None and part.stop == len(device_slots):
                    compute.wait_stream(self._stream)
                for at, (start, length) in _with_offsets(extents_of(host_slots[part])):
                    self.rows[start : start + length].copy_(block[at : at + length], non_blocking=True)

    def load(self, host_slots: Ints, device_slots: Ints) -> None:
        """Copy to the device. The host slots may be reused at once: later writes wait for the copy."""
        with self._copy_stream() as compute:
            for part in self._blocks(len(host_slots)):
                extents = extents_of(host_slots[part])
                if self._stream is None and len(extents) == 1:
                    block = self.rows[extents[0][0] : sum(extents[0])]
                else:
                    shape = part.stop - part.start, self.rows.shape[1]
                    block = torch.empty(shape, dtype=self.rows.dtype, device=self._device)
                    for at, (start, length) in _with_offsets(extents):
                        block[at : at + length].copy_(self.rows[start : start + length], non_blocking=True)
                self._on_device.scatter(device_slots[part], block)
            if self._stream is not None and compute is not None:
                compute.wait_stream(self._stream)

    def _blocks(self, num_tokens: int) -> Iterator[slice]:
        """Yield the parts of one copy. On the copy stream, each block reuses the memory of the block before it."""
        size = max(1, BLOCK_BYTES // (self.rows.shape[1] * self.rows.element_size()))
        for start in range(0, num_tokens, size):
            yield slice(start, min(start + size, num_tokens))

    def read(self, slots: Ints) -> torch.Tensor:
        """Return a copy of the rows [n, width] on the CPU."""
        self.wait()
        return self.rows[_index_tensor(slots, torch.device("cpu"))]

    def wait(self) -> None:
        """Wait until all stored rows are on the host."""
        if self._stream is not None:
            self._stream.synchronize()

    def check(self) -> None:
        """Assert the invariants of the free list, and that free rows are still NaN. Takes time proportional to the
        pool.
        """
        self._free.check()
        if self.poison:
            self.wait()
            for start, length in self._free.extents():
                assert self.rows[start : start + length].isnan().all(), f"a free row in {start}+{length} was written"

    def free_extents(self) -> list[tuple[int, int]]:
        """Return the maximal free extents as (first slot, length), ascending."""
        return self._free.extents()

    @property
    def _device(self) -> torch.device:
        return self._on_device.device

    @contextmanager
    def _copy_stream(self) -> Iterator[torch.cuda.Stream | None]:
        """Run on the copy stream, after all queued computing. Yields the compute stream; None on the CPU."""
        if self._stream is None:
            yield None
            return
        compute = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(compute)
        with torch.cuda.stream(self._stream):
            yield compute
