"""Shared by the graphs of decoding and of short prompts: capturing, and the tables of slots that they read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from treechat_kernels.cpu.path_attention import slot_tensor
from treechat_kernels.layout import SPLIT_LEN

Extents = Sequence[tuple[int, int]]


class CaptureError(Exception):
    """A forward cannot be captured. The message gives the reason."""


def capture(run: Callable[[], torch.Tensor], memory: Any) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
    """Return the graph of the launches of `run`, and the tensor that each replay fills. Runs it once before.

    memory: the pool that graphs share. Raises CaptureError, also if the device's memory runs out: an eager forward
        needs less.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    graph = torch.cuda.CUDAGraph()
    try:
        # Run once outside: kernels are compiled and libraries allocate their memory at their first call.
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
    """End a failed capture: torch's generator stays in capture mode until another capture succeeds."""
    torch.cuda.synchronize()
    with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=stream, capture_error_mode="thread_local"):
        torch.zeros(1, device=stream.device)


def num_splits(kv_len: int) -> int:
    """Return the splits of a graph for a path of this many tokens: a power of two, so that there are few graphs."""
    return 1 << (-(-kv_len // SPLIT_LEN) - 1).bit_length()


def pin_for_copy(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a CPU tensor whose copy to the device does not block."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


class SlotTable:
    """The slots of paths on the device, a row [max_len] per path. An update copies only the changed slots."""

    def __init__(self, num_rows: int, max_len: int, dummy: int, device: torch.device) -> None:
        """Make a table of empty rows.

        num_rows: paths.
        max_len: slots of a row.
        dummy: the first slot of an empty row.
        device: where the table is.
        """
        self._dummy = dummy
        self._rows = torch.full((num_rows, max_len), dummy, dtype=torch.int64, device=device)
        # The extents copied to each row.
        self._row_extents: list[list[tuple[int, int]]] = [[] for _ in range(num_rows)]

    @property
    def flat(self) -> torch.Tensor:
        """All rows, one after another."""
        return self._rows.view(-1)

    def clear(self) -> None:
        self._row_extents = [[] for _ in self._row_extents]
        self._rows[:, 0] = self._dummy

    def fill(self, row: int, extents: Extents) -> None:
        """Update the row to the path's extents, including those of later tokens, up to the row's length."""
        held = self._row_extents[row]
        same = 0
        while same < min(len(held), len(extents)) and held[same] == extents[same]:
            same += 1
        if same == len(extents):
            return
        start = sum(length for _, length in held[:same])
        first, length = extents[same]
        # Of an extent that only grew, copy only the new slots.
        skip = held[same][1] if same < len(held) and held[same][0] == first and held[same][1] < length else 0
        slots = slot_tensor([(first + skip, length - skip), *extents[same + 1 :]])
        start += skip
        slots = pin_for_copy(slots[: max(0, self._rows.shape[1] - start)], self._rows.device)
        self._rows[row, start : start + len(slots)].copy_(slots, non_blocking=True)
        self._row_extents[row] = list(extents)
