"""The tiles that kernels are launched with: those chosen on this device (`tuning.py`), else the fixed ones.

What is chosen belongs to who launches, on its thread: one engine of a process may use tiles that were measured, while
another, which promises the same bits at every start, uses the fixed ones.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple


class TileKey(NamedTuple):
    """A kernel, and what of its shapes its tile depends on: no length or batch size, so that a path's result does
    not depend on its company."""

    kernel: str
    sizes: tuple[int, ...] = ()

    def __str__(self) -> str:
        return "/".join([self.kernel, *(str(size) for size in self.sizes)])

    @classmethod
    def parse(cls, text: str) -> TileKey:
        """The key that is written so. Raises ValueError."""
        kernel, *sizes = text.split("/")
        return cls(kernel, tuple(int(size) for size in sizes))


class Tile(NamedTuple):
    """How a launch is cut. max_registers: None is ptxas's choice, which may spill a few bytes to fit one more block."""

    rows: int
    keys: int
    num_warps: int
    max_registers: int | None = None
    num_stages: int = 2


# Whether a kernel is started while the one before it ends (programmatic dependent launch): not unless measured faster.
LAUNCH = TileKey("launch")
NORMAL_LAUNCH = Tile(0, 0, 0)
EARLY_LAUNCH = Tile(1, 0, 0)

Tiles = Mapping[TileKey, Tile]


class _Local(threading.local):
    chosen: Tiles = MappingProxyType({})


_local = _Local()


def chosen_tile(key: TileKey, fixed: Tile) -> Tile:
    """The tile chosen for this key, or the fixed one."""
    return _local.chosen.get(key, fixed)


def launches_early() -> bool:
    """Whether the kernels of a decoding step are launched early."""
    return _local.chosen.get(LAUNCH, NORMAL_LAUNCH) == EARLY_LAUNCH


def tiles_in_use() -> Tiles:
    """The tiles chosen on this thread."""
    return _local.chosen


@contextmanager
def use_tiles(tiles: Tiles) -> Iterator[None]:
    """Inside, on this thread, these are used and else the fixed ones; what is added to `tiles` meanwhile too. Graphs
    that were captured keep theirs."""
    before = _local.chosen
    _local.chosen = tiles
    try:
        yield
    finally:
        _local.chosen = before


@contextmanager
def force_tile(key: TileKey, value: Tile) -> Iterator[None]:
    """Uses this tile inside, to measure it."""
    with use_tiles({**_local.chosen, key: value}):
        yield
