"""The tiles of `decode_attention.py`: what they depend on, and those that are used where none was chosen."""

from __future__ import annotations

import torch
import triton

from treechat_kernels.blocks import block_dim, chip
from treechat_kernels.tuning.tiles import Key, Tile

# What one block of the merge takes: splits at once, and values of a head. Not less where there are fewer splits: the
# order of the sum, and so its last bit, would depend on the longest path of the batch.
FIXED_MERGE = Tile(256, 32, 4)


def split_key(num_rows: int, padded_dim: int, dtype: torch.dtype) -> Key:
    """What the tile of a split depends on."""
    return Key("split", (dtype.itemsize, padded_dim, min(64, max(16, triton.next_power_of_2(num_rows)))))


def fixed_tile(key: Key) -> Tile:
    """The largest tile that runs out of registers on none of the chips of `tests/bench/aot.py`."""
    itemsize, padded_dim, rows = key.sizes
    if itemsize == 4:
        return Tile(16, 32 if padded_dim <= 64 else 16, 4)
    if rows == 64 and padded_dim <= 128 and chip() == 90:
        return Tile(64, 64, 4, num_stages=3)
    if padded_dim > 128:
        return Tile(16 if rows == 16 else 32, 32, 4)
    if padded_dim > 64:
        return Tile(16, 64, 8) if rows == 16 else Tile(32, 32, 4, 224)
    return Tile(rows, 64, 4 if rows == 16 else 8)


def merge_key(v_dim: int) -> Key:
    """What the tile of the merge depends on."""
    return Key("merge", (block_dim(v_dim),))
