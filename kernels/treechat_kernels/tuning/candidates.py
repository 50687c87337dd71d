"""The few tiles per kernel that `tuning` measures on a device, the fixed one first.

Tiles that need too many registers or too much shared memory on a chip are left out for it; `python tests/bench/aot.py
--candidates` compiles them all. The split length is not tuned, since results depend on it. The tiles of a kernel sum in
different orders, so results may differ in the last bits; a device keeps its tiles in a file, so its results stay.
"""

from __future__ import annotations

from treechat_kernels import decode_attention, extend_attention, linear
from treechat_kernels.blocks import chip
from treechat_kernels.tiles import EARLY_LAUNCH, LAUNCH, NORMAL_LAUNCH, Tile, TileKey

# Chips whose matrix products need fewer registers and whose blocks have more shared memory. 0 is the interpreter.
_LARGE_CHIPS = (0, 90, 100)
# The first chip that can start a kernel while the previous one ends.
_EARLY_CHIP = 90


def candidates(key: TileKey) -> list[Tile]:
    """Return the tiles to choose from for this key on the chip in use: the fixed tile first, then the others."""
    kernel = key.kernel
    if kernel == "split":
        return _distinct(decode_attention.fixed_tile(key), _split(key))
    if kernel == "merge":
        return _distinct(decode_attention.FIXED_MERGE, _merge(key))
    if kernel == "extend":
        return _distinct(extend_attention.fixed_tile(key), _extend(key))
    if kernel == "linear":
        return _distinct(linear.fixed_tile(key), _linear(key))
    assert key == LAUNCH, f"no kernel {kernel!r} has tiles to choose from"
    # Under the interpreter the chip is 0 and early launches are normal ones.
    return [NORMAL_LAUNCH, EARLY_LAUNCH] if chip() == 0 or chip() >= _EARLY_CHIP else [NORMAL_LAUNCH]


def _distinct(fixed: Tile, others: list[Tile]) -> list[Tile]:
    return list(dict.fromkeys([fixed, *others]))


def _split(key: TileKey) -> list[Tile]:
    itemsize, padded_dim, rows = key.sizes
    if itemsize == 4:
        return []
    if padded_dim > 128:
        return [Tile(16, 32, 4), Tile(16, 32, 8), Tile(16, 32, 4, num_stages=3)]
    if rows == 16:
        return [
            Tile(16, 32, 4, num_stages=3),
            Tile(16, 64, 4),
            Tile(16, 64, 4, num_stages=3),
            Tile(16, 64, 8),
            Tile(16, 128, 8),
        ]
    small = [Tile(rows, 32, 4, num_stages=3), Tile(rows, 64, 4), Tile(rows, 64, 8)]
    if rows == 64 and chip() not in _LARGE_CHIPS:
        return small if padded_dim <= 64 else small[2:]
    return [*small, Tile(rows, 128, 8)]


def _merge(key: TileKey) -> list[Tile]:
    (dim,) = key.sizes
    return [Tile(64, min(64, dim), 4), Tile(128, min(32, dim), 4), Tile(256, 16, 4), Tile(256, min(32, dim), 8)]


def _extend(key: TileKey) -> list[Tile]:
    itemsize, padded_dim = key.sizes
    if itemsize == 4:
        return []
    is_large = chip() in _LARGE_CHIPS
    if padded_dim > 128:
        return [Tile(64, 64, 8)] if is_large else []
    small = [Tile(64, 64, 8, num_stages=3)]
    if is_large or padded_dim <= 64:
        small += [Tile(64, 64, 4, num_stages=3), Tile(128, 64, 8), Tile(128, 64, 8, num_stages=3)]
    return [*small, Tile(64, 128, 4), Tile(128, 128, 8)] if is_large else small


def _linear(key: TileKey) -> list[Tile]:
    # A row that is normed in the same pass must fit one block.
    if key.sizes[0] <= linear.MAX_NORMED:
        return [Tile(1, 1024, 2), Tile(1, 1024, 4), Tile(2, 1024, 4), Tile(4, 1024, 4)]
    return [Tile(1, 1024, 4), Tile(2, 1024, 8), Tile(1, 2048, 8), Tile(2, 512, 4), Tile(4, 512, 4)]
