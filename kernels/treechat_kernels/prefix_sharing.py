"""Decide whether siblings read a shared prefix once, from measured rates of the device and the shapes of the step.

Siblings read the prefix either separately (plain) or once for all of them (shared). Both ways take a fixed time plus a
time per byte of keys and values; the shared way also takes a time per score, since it has many rows. The rates `H100`
choose the faster way in 13 of the 14 rows that they were fitted to (`tests/bench/results/gpu-h100-3ed12735bd.json`,
"shared prefix"). The last row is a tie: shared is 0.3 % faster.

TREECHAT_SHARED_PREFIX=always or =never forces one way, for measurements or as a workaround.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import torch

from treechat_kernels.layout import SPLIT_LEN


class Rates(NamedTuple):
    """The time model of both ways, in seconds.

    plain_s: fixed time of reading the prefix once per sibling.
    plain_byte_s: per byte of that; most bytes come from the device's cache.
    shared_s: fixed time of reading the prefix once.
    shared_byte_s: per byte of that.
    score_s: per score of that; there is one score per sibling, query head and token.
    """

    plain_s: float
    plain_byte_s: float
    shared_s: float
    shared_byte_s: float
    score_s: float

    @property
    def are_sound(self) -> bool:
        return all(math.isfinite(rate) and rate >= 0 for rate in self) and self.plain_byte_s > 0


class Siblings(NamedTuple):
    """The shape of a step in one layer.

    num_paths: how many siblings there are.
    prefix_len: tokens that they share.
    num_q_heads: query heads.
    token_bytes: bytes of the keys and values of one token.
    window: tokens of the sliding window; None sees all.
    """

    num_paths: int
    prefix_len: int
    num_q_heads: int
    token_bytes: int
    window: int | None = None

    @property
    def num_plain_bytes(self) -> int:
        """Bytes of the prefix that the siblings read separately: no more than their windows."""
        return self.num_paths * min(self.prefix_len, self.window or self.prefix_len) * self.token_bytes

    @property
    def num_scores(self) -> int:
        return self.num_paths * self.num_q_heads * self.prefix_len


class SharingTimes(NamedTuple):
    """The seconds that both ways took."""

    siblings: Siblings
    plain_s: float
    shared_s: float


# Used until the device is measured.
H100 = Rates(5.7e-6, 2.37e-13, 9.4e-6, 4.14e-13, 4.0e-12)
_rates = [H100]


def plain_seconds(siblings: Siblings, rates: Rates) -> float:
    return rates.plain_s + rates.plain_byte_s * siblings.num_plain_bytes


def shared_seconds(siblings: Siblings, rates: Rates) -> float:
    num_bytes = siblings.prefix_len * siblings.token_bytes
    return rates.shared_s + rates.shared_byte_s * num_bytes + rates.score_s * siblings.num_scores


def sharing_is_faster(siblings: Siblings) -> bool:
    """Return whether to read the whole splits of the prefix once."""
    siblings = siblings._replace(prefix_len=siblings.prefix_len // SPLIT_LEN * SPLIT_LEN)
    if siblings.num_paths < 2 or not siblings.prefix_len:
        return False
    mode = os.environ.get("TREECHAT_SHARED_PREFIX", "").lower()
    if mode in ("always", "never"):
        return mode == "always"
    return shared_seconds(siblings, rates_in_use()) < plain_seconds(siblings, rates_in_use())


def rates_in_use() -> Rates:
    """Return the rates that `sharing_is_faster` uses."""
    return _rates[0]


def use_rates(rates: Rates) -> None:
    """Use these rates in `sharing_is_faster` from now on."""
    _rates[:] = [rates]


def fit(measured: Sequence[SharingTimes]) -> Rates:
    """Return the non-negative rates with the least squared relative error against the measured times."""
    points = [each.siblings for each in measured]
    plain = _least_squares([[1.0, p.num_plain_bytes] for p in points], [each.plain_s for each in measured])
    shared = _least_squares(
        [[1.0, p.prefix_len * p.token_bytes, p.num_scores] for p in points], [each.shared_s for each in measured]
    )
    return Rates(*plain, *shared)


def _least_squares(rows: Sequence[Sequence[float]], times: Sequence[float]) -> list[float]:
    """Return the factor of each column by least squares of relative errors; 0 for columns that would be negative."""
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
