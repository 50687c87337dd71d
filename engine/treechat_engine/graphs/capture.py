"""What the graphs of decoding and of short prompts share: capturing, and the tables of slots that they read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from treechat_kernels.cpu.path_attention import slot_tensor
from treechat_kernels.layout import SPLIT_LEN

Extents = Sequence[tuple[int, int]]


class CaptureError(Exception):
    """A forward cannot be captured; the message says why."""


def capture(run: Callable[[], torch.Tensor], memory: Any) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
    """The graph of what `run` launches, and the tensor that each replay fills. Runs it once before.

    memory: the pool that graphs share. Raises CaptureError, also where the device's memory runs out: an eager forward
    needs less.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    graph = torch.cuda.CUDAGraph()
    try:
        # Once outside: kernels are compiled and libraries take their memory at their first call.
        with torch.cuda.stream(stream):
            run()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, pool=memory, stream=stream, capture_error_mode="thread_local"):
            result = run()
    except RuntimeError as error:
        _end_capture(stream)
        raise CaptureError(f"the step cannot be captured: {str(error).splitlines()[0]}") from error
    return graph, result


def _end_capture(stream: torch.cuda.Stream) -> None:
    """After a capture that failed: torch's generator believes in it until another one ends well."""
    torch.cuda.synchronize()
    with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=stream, capture_error_mode="thread_local"):
        torch.zeros(1, device=stream.device)


def num_splits(kv_len: int) -> int:
    """Splits that a graph for a path of this many tokens has: a power of two, so that there are few graphs."""
    return 1 << (-(-kv_len // SPLIT_LEN) - 1).bit_length()


def pin_for_copy(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A CPU tensor from where a copy to the device need not be waited for."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


class SlotTable:
    """The slots of paths on the device, a row [max_len] per path, brought up to date by what is new in it."""

    def __init__(self, num_rows: int, max_len: int, dummy: int, device: torch.device) -> None:
        """dummy: the slot that an empty row begins with."""
        self._dummy = dummy
        self._rows = torch.full((num_rows, max_len), dummy, dtype=torch.int64, device=device)
        # What each row holds: the path's runs, as they were copied.
        self._row_extents: list[list[tuple[int, int]]] = [[] for _ in range(num_rows)]

    @property
    def flat(self) -> torch.Tensor:
        """All rows, one after another."""
        return self._rows.view(-1)

    def clear(self) -> None:
        self._row_extents = [[] for _ in self._row_extents]
        self._rows[:, 0] = self._dummy

    def fill(self, row: int, extents: Extents) -> None:
        """Brings the row up to the path's runs, those of tokens to come included, as far as it is long."""
        held = self._row_extents[row]
        same = 0
        while same < min(len(held), len(extents)) and held[same] == extents[same]:
            same += 1
        if same == len(extents):
            return
        start = sum(length for _, length in held[:same])
        first, length = extents[same]
        # A run that only grew is copied from where it grew.
        skip = held[same][1] if same < len(held) and held[same][0] == first and held[same][1] < length else 0
        slots = slot_tensor([(first + skip, length - skip), *extents[same + 1 :]])
        start += skip
        slots = pin_for_copy(slots[: max(0, self._rows.shape[1] - start)], self._rows.device)
        self._rows[row, start : start + len(slots)].copy_(slots, non_blocking=True)
        self._row_extents[row] = list(extents)
