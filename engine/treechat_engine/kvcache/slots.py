"""The slot pool: the KV of each token in all layers, and the list of the slots that are free.

Where slots lie matters: attention on the CPU reads each contiguous run of a path as a view, so few runs make few
calls. `FreeSlots` therefore places by three rules. A branch goes on right after its last slot while that is free. A new
run lies in the largest free extent, so that what it asks for is in one piece where that is possible and else in the
fewest pieces. And it starts a gap behind the slots in front of that extent, so that the branch which ends there and the
new one can both grow: replies that are written at the same time do not interleave. The gap is bounded, and at most half
of what is left over, so that a large prompt still finds a large extent; a gap too small for a reply is not made at all.
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

# Slots. A gap is at most a turn of chat, or 1/32 of the pool where that is more. Once the pool is full, small gaps only
# break up the little that is free: with at least 32, the paths of the long session in `tests/bench/long_session.py` had
# twice as many runs as with at least 256. A small pool has smaller ones.
MAX_GAP = 512
MIN_GAP = 256

LayerShape = tuple[int, int, int]  # num_kv_heads, k_dim, v_dim


class OutOfSlots(EngineError):
    """Fewer slots are free than were asked for; nothing was allocated."""


def extents_of(slots: Sequence[int]) -> list[tuple[int, int]]:
    """The maximal runs of consecutive ascending slots, in the order given, as (first slot, length)."""
    if len(slots) == 1:
        return [(slots[0], 1)]
    return _extents(np.frombuffer(as_ints(slots), dtype=np.int64)) if slots else []


def sorted_extents(slots: Sequence[int]) -> list[tuple[int, int]]:
    """The same of the slots in ascending order."""
    if len(slots) == 1:
        return [(slots[0], 1)]
    return _extents(np.sort(np.frombuffer(as_ints(slots), dtype=np.int64))) if slots else []


def _extents(values: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    starts = np.concatenate(([0], np.flatnonzero(np.diff(values) != 1) + 1))
    lengths = np.diff(np.append(starts, len(values)))
    return list(zip(values[starts].tolist(), lengths.tolist(), strict=True))


def slot_bytes(layer_shapes: Sequence[LayerShape], dtype: torch.dtype) -> int:
    """Bytes that one slot takes in all layers."""
    return sum(heads * (k_dim + v_dim) for heads, k_dim, v_dim in layer_shapes) * dtype.itemsize


class FreeSlots:
    """Free slots as maximal extents: found by start, by end and by size, each change in O(log extents).

    The sizes are a heap in which outdated entries stay until they come up or outnumber the extents.
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

    def take(self, n: int, after: int | None = None, room: int = 0) -> list[tuple[int, int]]:
        """Allocate `n` slots (no more than are free) and return them as runs (first slot, length).

        after: the slot to go on behind, where that is possible. room: how many more will soon be asked for.
        """
        assert 0 <= n <= self.num_free, f"{n} slots asked, {self.num_free} free"
        extents = []
        left = n
        if after is not None and left and (length := self._len_at.get(after + 1, 0)):
            extents.append((after + 1, min(left, length)))
            self._carve(after + 1, *extents[-1])
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
        """Free the run [start, start + length), joined with the free extents beside it."""
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
        """The maximal free runs as (first slot, length), ascending."""
        return sorted(self._len_at.items())

    def check(self) -> None:
        """Assert that the extents are maximal and agree with the slots marked free."""
        marked = [slot for slot, free in enumerate(self._is_free) if free]
        assert self.extents() == extents_of(marked), f"extents {self.extents()} are not the free slots"
        assert len(marked) == self.num_free, f"{len(marked)} free, counted {self.num_free}"
        by_end = {start + length: start for start, length in self._len_at.items()}
        assert by_end == self._start_before, f"{len(by_end)} ends, kept {len(self._start_before)}"

    def _carve(self, extent: int, start: int, length: int) -> None:
        """Take the run at `start` out of the extent that begins at `extent`."""
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
    """[num_rows, num_heads, dim] in the order that attention on this device reads fastest.

    A CPU reads a run of one head after another: with the rows of a head side by side, 1,500 tokens of the default model
    took 6.9 ms a step instead of 12.5 (2 threads). Kernels on tables of slots read whole rows.
    """
    if dispatch.uses_tables(torch.device(device)):
        return torch.empty(num_rows, num_heads, dim, dtype=dtype, device=device)
    return torch.empty(num_heads, num_rows, dim, dtype=dtype, device=device).transpose(0, 1)


class SlotPool:
    """Keys and values of `num_slots` tokens in every layer.

    k[layer]: [num_slots + 1, num_kv_heads, k_dim], v[layer]: [num_slots + 1, num_kv_heads, v_dim]. The last row, at
    index `dummy` = num_slots, is never allocated: padding writes there. With `poison`, free rows hold NaN (for tests: a
    sum that touches one shows it).
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
        # Not zeroed: on the CPU the memory of a slot is then taken when the slot is first written, not at the start.
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

    def allocate(self, n: int, after: int | None = None, room: int = 0) -> Ints:
        """`n` free slots in order, in as few runs as the module docstring's rules find.

        after: the last slot of the branch that grows, to go on behind it. room: how many slots it will ask for next.
        Raises OutOfSlots where fewer are free; then nothing changed.
        """
        if n > self._free.num_free:
            raise OutOfSlots(f"{n} slots asked, {self._free.num_free} of {self.num_slots} free")
        slots = array("q")
        for start, length in self._free.take(n, after, room):
            slots.extend(range(start, start + length))
        return slots

    def free(self, slots: Sequence[int]) -> None:
        """Give `slots` back. An assertion fails on a slot that is free already."""
        for start, length in sorted_extents(slots):
            self._free.give(start, length)
            if self.poison:
                self._fill_nan(start, length)

    def check(self) -> None:
        """Assert the invariants of the free list, and that poisoned rows still are; costs the pool's size."""
        self._free.check()
        if self.poison:
            for start, length in self._free.extents():
                for rows in (*self.k, *self.v):
                    assert rows[start : start + length].isnan().all(), f"a free slot in {start}+{length} was written"

    def free_extents(self) -> list[tuple[int, int]]:
        """The maximal free runs as (first slot, length), ascending."""
        return self._free.extents()

    def _fill_nan(self, start: int, length: int) -> None:
        for rows in (*self.k, *self.v):
            rows[start : start + length].fill_(float("nan"))
