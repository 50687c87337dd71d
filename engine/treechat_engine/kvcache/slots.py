"""The slot pool: the KV of each token in all layers, and the free slots.

An extent is a number of slots side by side. CPU attention reads each extent of a path as one view, so a path in few
extents needs few calls. `FreeSlots` allocates by three rules:

1. A branch continues at the slot after its last one, if that is free.
2. Otherwise a new extent is in the largest free extent, so that an allocation has as few extents as possible.
3. A new extent starts after a gap. The branch that ends before the gap and the new one can then both grow: replies
   that are written at the same time do not interleave. The gap is bounded, and at most half of the remaining slots, so
   that a large prompt still finds a large extent. A gap that is too small for a reply is not made.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from treechat_engine.api import EngineError
from treechat_engine.kvcache.radix_node import Ints, as_ints
from treechat_kernels import dispatch

# Slots. A gap is at most one chat turn, or 1/32 of the pool if that is more. In a full pool, small gaps only fragment
# the few free slots: with a minimum of 32, the paths of `tests/bench/long_session.py` had twice as many extents as with
# 256. The minimum is lower in a small pool.
MAX_GAP = 512
MIN_GAP = 256

LayerShape = tuple[int, int, int]  # num_kv_heads, k_dim, v_dim


class OutOfSlots(EngineError):
    """Fewer slots are free than requested; nothing was allocated."""


def extents_of(slots: Sequence[int]) -> list[tuple[int, int]]:
    """Return the maximal extents of the slots in the given order, as (first slot, length)."""
    if len(slots) == 1:
        return [(slots[0], 1)]
    return _extents(np.frombuffer(as_ints(slots), dtype=np.int64)) if slots else []


def sorted_extents(slots: Sequence[int]) -> list[tuple[int, int]]:
    """Return the maximal extents of the slots in ascending order."""
    if len(slots) == 1:
        return [(slots[0], 1)]
    return _extents(np.sort(np.frombuffer(as_ints(slots), dtype=np.int64))) if slots else []


def _extents(values: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    starts = np.concatenate(([0], np.flatnonzero(np.diff(values) != 1) + 1))
    lengths = np.diff(np.append(starts, len(values)))
    return list(zip(values[starts].tolist(), lengths.tolist(), strict=True))


def slot_bytes(layer_shapes: Sequence[LayerShape], dtype: torch.dtype) -> int:
    """Return the bytes of one slot in all layers."""
    return sum(heads * (k_dim + v_dim) for heads, k_dim, v_dim in layer_shapes) * dtype.itemsize


class FreeSlots:
    """Free slots as maximal extents, indexed by start, end and size. Each change takes O(log extents).

    The index by size is a heap. Outdated entries stay in it until they reach the top or outnumber the extents.
    """

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self.num_free = 0
        self._max_gap = max(MAX_GAP, num_slots // 32)
        self._min_gap = min(MIN_GAP, num_slots // 64)
        self._is_free = bytearray(num_slots)
        self._len_at: dict[int, int] = {}
        self._start_before: dict[int, int] = {}
        self._by_len: list[tuple[int, int]] = []
        self.give(0, num_slots)

    def take(self, n: int, last_slot: int | None = None, room: int = 0) -> list[tuple[int, int]]:
        """Allocate `n` slots, no more than are free. Returns extents (first slot, length).

        n: slots.
        last_slot: continue after this slot, if possible.
        room: slots that the caller expects to request next.
        """
        assert 0 <= n <= self.num_free, f"{n} slots requested, {self.num_free} free"
        extents = []
        left = n
        if last_slot is not None and left and (length := self._len_at.get(last_slot + 1, 0)):
            extents.append((last_slot + 1, min(left, length)))
            self._carve(last_slot + 1, *extents[-1])
            left -= extents[-1][1]
        while left:
            start, length = self._largest()
            size = min(left, length)
            gap = min(self._max_gap, (length - size - room) // 2)
            if start == 0 or gap < self._min_gap:
                gap = 0
            extents.append((start + gap, size))
            self._carve(start, *extents[-1])
            left -= size
        return extents

    def give(self, start: int, length: int) -> None:
        """Free the extent [start, start + length) and join it with adjacent free extents."""
        end = start + length
        assert 0 <= start <= end <= self.num_slots, f"slots {start} to {end} of {self.num_slots}"
        assert 1 not in self._is_free[start:end], f"a slot in {start} to {end} is free already"
        self._is_free[start:end] = b"\x01" * length
        self.num_free += length
        if not length:
            return
        if (before := self._start_before.get(start)) is not None:
            self._unlink(before)
            start = before
        if end in self._len_at:
            end += self._unlink(end)
        self._link(start, end - start)

    def extents(self) -> list[tuple[int, int]]:
        """Return the maximal free extents as (first slot, length), ascending."""
        return sorted(self._len_at.items())

    def check(self) -> None:
        """Assert that the extents are maximal and match the slots marked free."""
        marked = [slot for slot, free in enumerate(self._is_free) if free]
        assert self.extents() == extents_of(marked), f"extents {self.extents()} are not the free slots"
        assert len(marked) == self.num_free, f"{len(marked)} free, counted {self.num_free}"
        by_end = {start + length: start for start, length in self._len_at.items()}
        assert by_end == self._start_before, f"{len(by_end)} ends, kept {len(self._start_before)}"

    def _carve(self, extent: int, start: int, length: int) -> None:
        """Take the slots from `start` on out of the extent that starts at `extent`."""
        end, extent_end = start + length, extent + self._unlink(extent)
        self._is_free[start:end] = bytes(length)
        self.num_free -= length
        self._link(extent, start - extent)
        self._link(end, extent_end - end)

    def _link(self, start: int, length: int) -> None:
        if not length:
            return
        self._len_at[start] = length
        self._start_before[start + length] = start
        heapq.heappush(self._by_len, (-length, start))
        if len(self._by_len) > 2 * len(self._len_at) + 64:
            self._by_len = [(-length, start) for start, length in self._len_at.items()]
            heapq.heapify(self._by_len)

    def _unlink(self, start: int) -> int:
        length = self._len_at.pop(start)
        del self._start_before[start + length]
        return length

    def _largest(self) -> tuple[int, int]:
        while True:
            length, start = self._by_len[0]
            if self._len_at.get(start) == -length:
                return start, -length
            heapq.heappop(self._by_len)


def _empty_rows(
    num_rows: int, num_heads: int, dim: int, dtype: torch.dtype, device: torch.device | str
) -> torch.Tensor:
    """Return [num_rows, num_heads, dim] in the memory order that this device's attention reads fastest.

    A CPU reads an extent of one head after another. With the rows of a head side by side, a step over 1,500 tokens of
    the default model took 6.9 ms instead of 12.5 (2 threads). Kernels that read tables of slots read whole rows.
    """
    if dispatch.uses_tables(torch.device(device)):
        return torch.empty(num_rows, num_heads, dim, dtype=dtype, device=device)
    return torch.empty(num_heads, num_rows, dim, dtype=dtype, device=device).transpose(0, 1)


class SlotPool:
    """Keys and values of `num_slots` tokens in every layer.

    k[layer]: [num_slots + 1, num_kv_heads, k_dim].
    v[layer]: [num_slots + 1, num_kv_heads, v_dim].

    num_slots: slots that can be allocated.
    layer_shapes: (num_kv_heads, k_dim, v_dim) per layer.
    dtype: of keys and values.
    device: where the pool is.
    poison: free rows are NaN, for tests: a sum that includes one shows it.
    dummy: the index of the last row, num_slots; it is never allocated, and padding is written to it.
    """

    def __init__(
        self,
        num_slots: int,
        layer_shapes: Sequence[LayerShape],
        dtype: torch.dtype,
        device: torch.device | str,
        poison: bool = False,
    ) -> None:
        assert num_slots > 0, f"a pool of {num_slots} slots"
        self.num_slots = num_slots
        self.dummy = num_slots
        self.poison = poison
        # Not zeroed: the operating system then allocates a slot's memory when it is first written.
        self.k = [_empty_rows(num_slots + 1, h, k, dtype, device) for h, k, _ in layer_shapes]
        self.v = [_empty_rows(num_slots + 1, h, v, dtype, device) for h, _, v in layer_shapes]
        for rows in (*self.k, *self.v):
            rows[self.dummy].zero_()
        self._free = FreeSlots(num_slots)
        if poison:
            self._fill_nan(0, num_slots)

    @property
    def num_free(self) -> int:
        return self._free.num_free

    def allocate(self, n: int, last_slot: int | None = None, room: int = 0) -> Ints:
        """Return `n` free slots in order, in as few extents as the rules of the module docstring allow.

        n: slots. If fewer are free, raises OutOfSlots and changes nothing.
        last_slot: the last slot of the growing branch; continue after it if possible.
        room: slots that the branch is expected to request next.
        """
        if n > self._free.num_free:
            raise OutOfSlots(f"{n} slots requested, {self._free.num_free} of {self.num_slots} free")
        slots = array("q")
        for start, length in self._free.take(n, last_slot, room):
            slots.extend(range(start, start + length))
        return slots

    def free(self, slots: Sequence[int]) -> None:
        """Free `slots`. Asserts that none is already free."""
        for start, length in sorted_extents(slots):
            self._free.give(start, length)
            if self.poison:
                self._fill_nan(start, length)

    def check(self) -> None:
        """Assert the invariants of the free list, and that free rows are still NaN. Takes time proportional to the
        pool.
        """
        self._free.check()
        if self.poison:
            for start, length in self._free.extents():
                for rows in (*self.k, *self.v):
                    assert rows[start : start + length].isnan().all(), f"a free slot in {start}+{length} was written"

    def free_extents(self) -> list[tuple[int, int]]:
        """Return the maximal free extents as (first slot, length), ascending."""
        return self._free.extents()

    def _fill_nan(self, start: int, length: int) -> None:
        for rows in (*self.k, *self.v):
            rows[start : start + length].fill_(float("nan"))
