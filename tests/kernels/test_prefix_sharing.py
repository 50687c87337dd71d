"""When a shared prefix is read once: the time model agrees with measurements on an H100."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from treechat_kernels.layout import SPLIT_LEN
from treechat_kernels.prefix_sharing import (
    H100,
    Rates,
    SharingTimes,
    Siblings,
    fit,
    plain_seconds,
    shared_seconds,
    sharing_is_faster,
    use_rates,
)

RESULTS = Path(__file__).parents[1] / "bench/results/gpu-h100-3ed12735bd.json"
# Share of the shorter time. A smaller difference is a tie, so either choice is right.
TIE = 0.01


@pytest.fixture
def measurements():
    """Return the rows of the committed measurements."""
    found = []
    for row in json.loads(RESULTS.read_text())["shared prefix"]:
        num_q_heads, rest = row["heads"].split("/")
        num_kv_heads, dim = rest.split("x")
        token_bytes = int(num_kv_heads) * int(dim) * 4
        siblings = Siblings(row["siblings"], row["prefix"], int(num_q_heads), token_bytes)
        found.append(SharingTimes(siblings, row["plain_us"] / 1e6, row["us"] / 1e6))
    assert len(found) == 14
    return found


def test_the_faster_way_is_chosen_in_every_row_without_a_tie(measurements):
    wrong = []
    for siblings, plain_s, shared_s in measurements:
        is_tie = abs(plain_s - shared_s) < TIE * min(plain_s, shared_s)
        if sharing_is_faster(siblings) != (shared_s < plain_s):
            assert is_tie, f"{siblings}: {plain_s} s each by itself, {shared_s} s once"
            wrong.append(siblings)
    assert len(wrong) <= 1


def test_the_default_rates_are_fitted_to_the_measurements(measurements):
    assert fit(measurements) == pytest.approx(H100, rel=0.02)
    for siblings, plain_s, shared_s in measurements:
        assert plain_seconds(siblings, H100) == pytest.approx(plain_s, rel=0.2)
        assert shared_seconds(siblings, H100) == pytest.approx(shared_s, rel=0.3)


def test_a_fit_recovers_the_rates_of_the_times_and_none_is_negative(measurements):
    rates = Rates(2e-6, 1e-12, 5e-6, 3e-12, 1e-11)
    points = [each.siblings for each in measurements]
    made = [SharingTimes(p, plain_seconds(p, rates), shared_seconds(p, rates)) for p in points]
    assert fit(made) == pytest.approx(rates, rel=1e-6)
    falling = [SharingTimes(p, plain_s, 1e-3 / p.prefix_len) for p, plain_s, _ in made]
    assert min(fit(falling)) == 0.0


@pytest.fixture
def rates_of_h100():
    yield
    use_rates(H100)


@pytest.mark.usefixtures("rates_of_h100")
def test_other_rates_change_the_choice():
    siblings = Siblings(4, 8192, 32, 4096)
    assert sharing_is_faster(siblings)
    use_rates(H100._replace(score_s=1e-9))
    assert not sharing_is_faster(siblings)


def test_one_path_less_than_a_split_or_a_short_window_share_nothing():
    assert not sharing_is_faster(Siblings(1, 100_000, 32, 4096))
    assert not sharing_is_faster(Siblings(64, SPLIT_LEN - 1, 32, 1 << 20))
    assert sharing_is_faster(Siblings(8, 16384, 32, 4096)) and sharing_is_faster(
        Siblings(8, 16384, 32, 4096, window=16384)
    )
    assert not sharing_is_faster(Siblings(8, 16384, 32, 4096, window=512))


def test_either_way_can_be_forced(monkeypatch):
    few, many = Siblings(2, SPLIT_LEN, 4, 64), Siblings(32, 32768, 32, 4096)
    assert not sharing_is_faster(few) and sharing_is_faster(many)
    monkeypatch.setenv("TREECHAT_SHARED_PREFIX", "always")
    assert sharing_is_faster(few) and not sharing_is_faster(few._replace(prefix_len=SPLIT_LEN - 1))
    monkeypatch.setenv("TREECHAT_SHARED_PREFIX", "never")
    assert not sharing_is_faster(many)
