"""The tiles that kernels are launched with: those chosen on this device (`tuning.py`), else the fixed ones.

A process uses one kind of device, so this is one table for all engines in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple


class Key(NamedTuple):
    """A kernel, and what of its shapes its tile depends on: no length or batch size, so that a path's result does
    not depend on its company."""

    kernel: str
    sizes: tuple[int, ...] = ()

    def __str__(self) -> str:
        return "/".join([self.kernel, *(str(size) for size in self.sizes)])

    @classmethod
    def parse(cls, text: str) -> Key:
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
LAUNCH = Key("launch")
AFTER = Tile(0, 0, 0)
EARLY = Tile(1, 0, 0)

_chosen: dict[Key, Tile] = {}


def tile(key: Key, fixed: Tile) -> Tile:
    """The tile chosen for this key, or the fixed one."""
    return _chosen.get(key, fixed)


def is_early() -> bool:
    """Whether the kernels of a decoding step are launched early."""
    return _chosen.get(LAUNCH, AFTER) == EARLY


def install(tiles: Mapping[Key, Tile]) -> None:
    """From now on these are used; graphs that were captured keep theirs."""
    _chosen.update(tiles)


def clear() -> None:
    _chosen.clear()


@contextmanager
def fixed() -> Iterator[None]:
    """Uses the fixed tiles inside, to measure them."""
    before = dict(_chosen)
    _chosen.clear()
    try:
        yield
    finally:
        _chosen.update(before)


@contextmanager
def forced(key: Key, value: Tile) -> Iterator[None]:
    """Uses this tile inside, to measure it."""
    before = _chosen.get(key)
    _chosen[key] = value
    try:
        yield
    finally:
        if before is None:
            del _chosen[key]
        else:
            _chosen[key] = before
