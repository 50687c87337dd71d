"""The first line of each of many blocks, from their heights."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

CHUNK = 256
"""Heights per chunk. A change recomputes only the sums over chunks."""


class Heights:
    """Blocks stacked vertically. `self[i]` is the first line of block i; `self[len(self)]` is the total height.

    Changing one of 100,000 heights costs the same at any index.
    """

    def __init__(self, heights: list[int]) -> None:
        self._heights = heights
        self._sums = [sum(heights[i : i + CHUNK]) for i in range(0, len(heights), CHUNK)]
        self._starts: list[int] | None = None

    def __len__(self) -> int:
        return len(self._heights)

    def __getitem__(self, index: int) -> int:
        chunk = index // CHUNK
        return self.starts[chunk] + sum(self._heights[chunk * CHUNK : index])

    @property
    def starts(self) -> list[int]:
        """The first line of each chunk, then the total."""
        if self._starts is None:
            self._starts = [0, *accumulate(self._sums)]
        return self._starts

    @property
    def total(self) -> int:
        return self.starts[-1]

    def height(self, index: int) -> int:
        """Return the lines of one block."""
        return self._heights[index]

    def first(self, num: int) -> list[int]:
        """Return the heights of the first `num` blocks."""
        return self._heights[:num]

    def change(self, index: int, height: int) -> None:
        """Set the height of a block."""
        delta = height - self._heights[index]
        if delta:
            self._heights[index] = height
            self._sums[index // CHUNK] += delta
            self._starts = None

    def index_at(self, line: int) -> int:
        """Return the index of the block that contains the line; for a line outside, of the first or last block."""
        chunk = max(bisect_right(self.starts, line, hi=len(self._sums)) - 1, 0)
        ends = list(accumulate(self._heights[chunk * CHUNK : (chunk + 1) * CHUNK]))
        index = chunk * CHUNK + bisect_right(ends, line - self.starts[chunk])
        return max(min(index, len(self) - 1), 0)
