"""The tiles that kernels are launched with: those that `tuning` chose on this device, else the fixed ones.

The choice is per thread and set by the caller of the kernels. So one engine of a process can use measured tiles while a
deterministic engine, which returns the same bits after every start, uses the fixed ones.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple


class TileKey(NamedTuple):
    """A kernel and the sizes that its tile depends on.

    Neither lengths nor batch sizes are among them, so a path's result does not depend on the rest of the batch.
    """

    kernel: str
    sizes: tuple[int, ...] = ()

    def __str__(self) -> str:
        return "/".join([self.kernel, *(str(size) for size in self.sizes)])

    @classmethod
    def parse(cls, text: str) -> TileKey:
        """Parse what `str` of a key gives. Raises ValueError."""
        kernel, *sizes = text.split("/")
        return cls(kernel, tuple(int(size) for size in sizes))


class Tile(NamedTuple):
    """How a launch is cut.

    rows: rows of one block.
    keys: columns of one block: keys in attention, values of a head in the merge, inputs in a linear layer.
    num_warps: warps of one block.
    max_registers: registers per thread. None leaves it to ptxas, which may spill a few bytes to fit one more block.
    num_stages: stages of the software pipeline.
    """

    rows: int
    keys: int
    num_warps: int
    max_registers: int | None = None
    num_stages: int = 2


# Whether a kernel starts while the previous one ends (programmatic dependent launch). Off until it is measured faster.
LAUNCH = TileKey("launch")
NORMAL_LAUNCH = Tile(0, 0, 0)
EARLY_LAUNCH = Tile(1, 0, 0)

Tiles = Mapping[TileKey, Tile]


class _Local(threading.local):
    chosen: Tiles = MappingProxyType({})


_local = _Local()


def chosen_tile(key: TileKey, fixed: Tile) -> Tile:
    """Return the tile chosen for this key, or the fixed one."""
    return _local.chosen.get(key, fixed)


def launches_early() -> bool:
    """Return whether the kernels of a decoding step are launched early."""
    return _local.chosen.get(LAUNCH, NORMAL_LAUNCH) == EARLY_LAUNCH


def tiles_in_use() -> Tiles:
    """Return the tiles chosen on this thread."""
    return _local.chosen


@contextmanager
def use_tiles(tiles: Tiles) -> Iterator[None]:
    """Use these tiles on this thread, and the fixed ones for other keys.

    Tiles added to `tiles` meanwhile take effect. Captured graphs keep the tiles that they were captured with.
    """
    before = _local.chosen
    _local.chosen = tiles
    try:
        yield
    finally:
        _local.chosen = before


@contextmanager
def force_tile(key: TileKey, value: Tile) -> Iterator[None]:
    """Use this tile for the key, to measure it."""
    with use_tiles({**_local.chosen, key: value}):
        yield
