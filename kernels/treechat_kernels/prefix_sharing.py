"""Whether siblings read a shared prefix once, from what the device was measured at and the shapes of the step.

Both ways take a fixed time and a time per byte of keys and values that they read; reading once also takes time per
score, as its rows are many. With the rates of `H100` the model agrees with 13 of the 14 rows that they were fitted to
(`tests/bench/results/gpu-h100-3ed12735bd.json`, "shared prefix"); the other is 0.3 % faster shared, a tie.

TREECHAT_SHARED_PREFIX=always or =never forces one, to measure or to work around.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import torch

from treechat_kernels.layout import SPLIT_LEN


class Rates(NamedTuple):
    """Seconds. Of reading once per sibling: fixed, and per byte, most of which come from the device's cache. Of reading
    once: fixed, per byte, and per score, of which there is one per sibling, query head and token."""

    plain_s: float
    plain_byte_s: float
    shared_s: float
    shared_byte_s: float
    score_s: float

    @property
    def are_sound(self) -> bool:
        return all(math.isfinite(rate) and rate >= 0 for rate in self) and self.plain_byte_s > 0


class Siblings(NamedTuple):
    """The shape of a step in one layer. token_bytes: keys and values of one token. window: None sees all."""

    num_paths: int
    prefix_len: int
    num_q_heads: int
    token_bytes: int
    window: int | None = None

    @property
    def num_plain_bytes(self) -> int:
        """What the siblings read of the prefix, each by itself: no more than their windows."""
        return self.num_paths * min(self.prefix_len, self.window or self.prefix_len) * self.token_bytes

    @property
    def num_scores(self) -> int:
        return self.num_paths * self.num_q_heads * self.prefix_len


class SharingTimes(NamedTuple):
    """What both ways took, in seconds."""

    siblings: Siblings
    plain_s: float
    shared_s: float


# Used where nothing was measured.
H100 = Rates(5.7e-6, 2.37e-13, 9.4e-6, 4.14e-13, 4.0e-12)
_rates = [H100]


def plain_seconds(siblings: Siblings, rates: Rates) -> float:
    return rates.plain_s + rates.plain_byte_s * siblings.num_plain_bytes


def shared_seconds(siblings: Siblings, rates: Rates) -> float:
    num_bytes = siblings.prefix_len * siblings.token_bytes
    return rates.shared_s + rates.shared_byte_s * num_bytes + rates.score_s * siblings.num_scores


def sharing_is_faster(siblings: Siblings) -> bool:
    """Whether to read the prefix once, as far as it is whole splits."""
    siblings = siblings._replace(prefix_len=siblings.prefix_len // SPLIT_LEN * SPLIT_LEN)
    if siblings.num_paths < 2 or not siblings.prefix_len:
        return False
    mode = os.environ.get("TREECHAT_SHARED_PREFIX", "").lower()
    if mode in ("always", "never"):
        return mode == "always"
    return shared_seconds(siblings, rates_in_use()) < plain_seconds(siblings, rates_in_use())


def rates_in_use() -> Rates:
    """The rates that decide now."""
    return _rates[0]


def use_rates(rates: Rates) -> None:
    """From now on these decide."""
    _rates[:] = [rates]


def fit(measured: Sequence[SharingTimes]) -> Rates:
    """The rates that come closest to what was measured, in proportion to each time; none is negative."""
    points = [each.siblings for each in measured]
    plain = _least_squares([[1.0, p.num_plain_bytes] for p in points], [each.plain_s for each in measured])
    shared = _least_squares(
        [[1.0, p.prefix_len * p.token_bytes, p.num_scores] for p in points], [each.shared_s for each in measured]
    )
    return Rates(*plain, *shared)


def _least_squares(rows: Sequence[Sequence[float]], times: Sequence[float]) -> list[float]:
    """Factors of the columns that give the times, those left out that would be negative."""
    table = torch.tensor(rows, dtype=torch.float64) / torch.tensor(times, dtype=torch.float64)[:, None]
    norms = table.norm(dim=0)
    columns = list(range(table.shape[1]))
    while True:
        found = torch.linalg.lstsq((table / norms)[:, columns], torch.ones(len(times), 1, dtype=torch.float64)).solution
        if len(columns) == 1 or float(found.min()) >= 0:
            break
        columns.pop(int(found.argmin()))
    factors = torch.zeros(table.shape[1], dtype=torch.float64)
    factors[columns] = found[:, 0].clamp_min(0)
    return [float(factor) for factor in factors / norms]
