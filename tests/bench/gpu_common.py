"""The parts that all GPU measurements share: the machine's ceilings, timing and the report."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from triton.testing import do_bench, do_bench_cudagraph

# The device of all tensors; tests of the control flow set another.
DEVICE = "cuda"


def device_name() -> str | None:
    """Return the device's name; None without a device."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def free_bytes() -> int:
    return torch.cuda.mem_get_info()[0]


def finish() -> None:
    """Wait until the device is idle."""
    torch.cuda.synchronize()


def release() -> None:
    """Return unused memory to the device."""
    gc.collect()
    torch.cuda.empty_cache()


class Ceilings(NamedTuple):
    """The machine's ceilings.

    bytes_per_s: of a large copy, counting reads and writes.
    flop_per_s: bfloat16 operations of a large matrix product.
    """

    bytes_per_s: float
    flop_per_s: float


def ceilings() -> Ceilings:
    size = 1 << 29
    a = torch.empty(size, dtype=torch.uint8, device=DEVICE).random_()
    b = torch.empty_like(a)
    copy_s = do_bench(lambda: b.copy_(a), return_mode="median") / 1e3
    x, y = (torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    product_s = do_bench(lambda: x @ y, return_mode="median") / 1e3
    return Ceilings(2 * size / copy_s, 2 * 8192**3 / product_s)


def seconds(work: Callable[[], object]) -> float:
    """Return the median seconds of `work` replayed from a graph, without Python's gaps between launches."""
    work()
    torch.cuda.synchronize()
    return do_bench_cudagraph(work, rep=20, return_mode="median") / 1e3


class Report:
    """Prints each row at once and keeps all rows for the file."""

    def __init__(self, path: Path | None, deadline: float) -> None:
        self._path = path
        self._deadline = deadline
        self._data: dict[str, Any] = {}
        self._title = ""

    @property
    def is_late(self) -> bool:
        """Whether the time of the run, or of the current part, is over."""
        return time.monotonic() >= self._deadline

    @property
    def left_s(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Limit the time left to these seconds inside the block."""
        before = self._deadline
        self._deadline = min(before, time.monotonic() + seconds)
        try:
            yield
        finally:
            self._deadline = before

    def is_over(self, part: str) -> bool:
        """Return `is_late`; if True, note that the rest of the part is skipped."""
        if self.is_late:
            self.note(f"{part}: no time for the rest")
        return self.is_late

    def head(self, values: dict[str, Any]) -> None:
        self._data.update(values)
        print(", ".join(f"{key} {value}" for key, value in values.items()), flush=True)

    def row(self, part: str, **values: Any) -> None:
        if part != self._title:
            self._title = part
            print(f"\n{part}", flush=True)
        rounded = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in values.items()}
        self._data.setdefault(part, []).append(rounded)
        print("  " + "  ".join(f"{key} {value}" for key, value in rounded.items()), flush=True)

    def note(self, text: str) -> None:
        self._data.setdefault("notes", []).append(text)
        print(f"  ({text})", flush=True)

    def write(self) -> None:
        if self._path is not None:
            self._path.write_text(json.dumps(self._data, indent=1) + "\n")
