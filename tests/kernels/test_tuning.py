"""Tuning: which tiles are measured and chosen, its time limit, and the file that keeps the result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from treechat_kernels.prefix_sharing import (
    H100,
    Rates,
    SharingTimes,
    Siblings,
    plain_seconds,
    rates_in_use,
    shared_seconds,
    use_rates,
)
from treechat_kernels.tiles import (
    EARLY_LAUNCH,
    LAUNCH,
    NORMAL_LAUNCH,
    TileKey,
    chosen_tile,
    force_tile,
    launches_early,
    tiles_in_use,
    use_tiles,
)
from treechat_kernels.tuning import tuning, tuning_file
from treechat_kernels.tuning.candidates import candidates
from treechat_kernels.tuning.cases import AttentionCases, AttentionShape, Case, LinearShape, Scale
from treechat_kernels.tuning.tuning_file import TuningResult

ROOT = Path(__file__).parents[2]
WHO = {"device": "a GPU", "source": "abc"}
KEY = TileKey("split", (2, 64, 16))
KEYS = [
    *(TileKey("split", (2, dim, rows)) for dim in (64, 128, 256) for rows in (16, 32, 64)),
    *(TileKey("merge", (dim,)) for dim in (16, 64, 128)),
    *(TileKey("extend", (2, dim)) for dim in (64, 128, 256)),
    TileKey("linear", (896, 1)),
    TileKey("linear", (4864, 0)),
    LAUNCH,
]
CPU = torch.device("cpu")
SCALE = Scale(context=192, num_new=2, cold_bytes=1, prefixes=(128, 144), num_siblings=(2, 3), spare=48)


@pytest.fixture(autouse=True)
def rates_of_h100():
    use_rates(H100)
    torch.manual_seed(0)
    yield
    use_rates(H100)


def timer(times):
    """Return a fake timer: the seconds of the tile in use for KEY, 1 for tiles not listed."""
    return lambda run: times.get(chosen_tile(KEY, candidates(KEY)[0]), 1.0)


def run():
    return torch.ones(3)


def never_late():
    return 0.0


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_candidates_are_few_different_and_begin_with_the_fixed_tile(key):
    found = candidates(key)
    assert 2 <= len(found) <= 8 and len(set(found)) == len(found)
    if key.kernel == "split":
        assert all(128 % tile.keys == 0 for tile in found), "a block of keys must not cross the end of a split"


def test_the_fastest_tile_is_chosen_if_it_is_clearly_faster():
    fixed, first, second, *_ = candidates(KEY)
    found = TuningResult()
    assert tuning.tune([Case(KEY, run)], found, timer({fixed: 1.0, first: 0.8, second: 0.7}), never_late, 1.0)
    assert found.tiles == {KEY: second} and chosen_tile(KEY, fixed) == fixed
    with use_tiles(found.tiles):
        assert chosen_tile(KEY, fixed) == second
    found = TuningResult()
    assert tuning.tune([Case(KEY, run)], found, timer({first: 0.98}), never_late, 1.0)
    assert found.tiles == {KEY: fixed}


def test_tiles_are_per_thread():
    fixed, first, second, *_ = candidates(KEY)
    seen = []
    other = threading.Thread(target=lambda: seen.append(chosen_tile(KEY, fixed)))
    with use_tiles({KEY: first, LAUNCH: EARLY_LAUNCH}):
        other.start()
        other.join()
        assert chosen_tile(KEY, fixed) == first and launches_early()
        with force_tile(KEY, second):
            assert chosen_tile(KEY, fixed) == second and launches_early()
        with use_tiles({}):
            assert chosen_tile(KEY, fixed) == fixed and not launches_early()
        assert chosen_tile(KEY, fixed) == first
    assert seen == [fixed] and chosen_tile(KEY, fixed) == fixed


def test_a_measured_tile_is_not_measured_again():
    def seconds(_run):
        raise AssertionError("measured")

    found = TuningResult({KEY: candidates(KEY)[1]})
    assert tuning.tune([Case(KEY, run)], found, seconds, never_late, 1.0)


def test_a_tile_that_computes_something_else_or_cannot_be_launched_is_not_chosen():
    fixed, wrong, broken, empty, good, *_ = candidates(KEY)
    results = {wrong: torch.ones(3) * 1.1, empty: torch.full((3,), float("nan"))}

    def launch():
        tile = chosen_tile(KEY, fixed)
        if tile == broken:
            raise RuntimeError("out of resource: shared memory")
        return results.get(tile, torch.ones(3))

    found = TuningResult()
    times = {wrong: 0.1, broken: 0.1, empty: 0.1, good: 0.5}
    assert tuning.tune([Case(KEY, launch)], found, timer(times), never_late, 1.0)
    assert found.tiles == {KEY: good}


def test_after_the_deadline_the_rest_keep_their_fixed_tiles_until_the_next_start():
    now = iter(range(100))
    found = TuningResult()
    other = TileKey("merge", (64,))
    both = [Case(KEY, run), Case(other, run)]
    assert not tuning.tune(both, found, timer({candidates(KEY)[1]: 0.5}), lambda: next(now), 7)
    assert found.tiles == {KEY: candidates(KEY)[1]}
    with use_tiles(found.tiles):
        assert chosen_tile(other, NORMAL_LAUNCH) == NORMAL_LAUNCH, "a tile that was being measured stayed"
    assert tuning.tune(both, found, timer({}), never_late, 1.0) and other in found.tiles


def test_the_file_restores_the_measurements(tmp_path):
    found = TuningResult({KEY: candidates(KEY)[1], LAUNCH: EARLY_LAUNCH}, H100._replace(score_s=1e-11))
    path = tmp_path / "new" / "kernels.json"
    tuning_file.save(path, WHO, found)
    assert tuning_file.load(path, WHO) == found
    assert [each.name for each in path.parent.iterdir()] == ["kernels.json"]
    for name, value in WHO.items():
        assert tuning_file.load(path, WHO | {name: value + "2"}) == TuningResult()


def hostile():
    good = {"identity": WHO, "tiles": {"split/2/64/16": list(candidates(KEY)[1])}, "rates": list(H100)}
    yield "nothing", b""
    yield "half", json.dumps(good).encode()[:-9]
    yield "no json", b"\xff\xfe\x00"
    yield "a list", b"[1, 2]"
    yield "deep", b"[" * 100_000
    yield "large", b" " * (2 << 20) + json.dumps(good).encode()
    yield "no rates", json.dumps({**good, "rates": [1]}).encode()
    yield "words for rates", json.dumps({**good, "rates": ["x"] * 5}).encode()
    yield "no kernel", json.dumps({**good, "tiles": {"rm -rf/2": [1, 2, 3]}}).encode()
    yield "a short key", json.dumps({**good, "tiles": {"split": [16, 64, 4, None, 2]}}).encode()
    yield "a long tile", json.dumps({**good, "tiles": {"split/2/64/16": [1] * 9}}).encode()
    yield "tiles in a list", json.dumps({**good, "tiles": [1]}).encode()


@pytest.mark.parametrize("content", [content for _, content in hostile()], ids=[name for name, _ in hostile()])
def test_a_damaged_file_counts_as_missing(tmp_path, content):
    path = tmp_path / "kernels.json"
    path.write_bytes(content)
    assert tuning_file.load(path, WHO) == TuningResult()


def test_tiles_that_are_no_candidates_and_invalid_rates_are_ignored(tmp_path):
    path = tmp_path / "kernels.json"
    tiles = {"split/2/64/16": [4096, 4096, 64, None, 2], "merge/64": list(candidates(TileKey("merge", (64,)))[1])}
    for rates in ([float("nan")] * 5, [-1.0] * 5, [0.0] * 5):
        path.write_text(json.dumps({"identity": WHO, "tiles": tiles, "rates": rates}))
        assert tuning_file.load(path, WHO) == TuningResult(
            {TileKey("merge", (64,)): candidates(TileKey("merge", (64,)))[1]}
        )


def test_a_folder_that_cannot_be_written_is_only_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    tuning_file.save(tmp_path / "file" / "kernels.json", WHO, TuningResult())
    assert "cannot be saved" in caplog.text


def test_each_device_has_its_own_file_in_the_cache_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("TREECHAT_CACHE_DIR", str(tmp_path))
    paths = {
        tuning_file.file_of(WHO),
        tuning_file.file_of(WHO | {"device": "another"}),
        tuning_file.file_of(WHO | {"source": "b"}),
    }
    assert len(paths) == 3 and {path.parent for path in paths} == {tmp_path}
    monkeypatch.delenv("TREECHAT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tuning_file.file_of(WHO).parent == tmp_path / "treechat"


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled here, and take no tensors of the CPU")
@pytest.mark.parametrize(
    "shape",
    [pytest.param(AttentionShape(16, 1, 16, 16), marks=pytest.mark.slow), AttentionShape(17, 1, 32, 16)],
    ids=str,
)
def test_every_candidate_computes_the_same_under_the_interpreter(shape):
    tried = {}

    def seconds(_run):
        for key, tile in tiles_in_use().items():
            tried.setdefault(key, set()).add(tile)
        return 1.0

    found = TuningResult()
    linears = [LinearShape(6, 24, True), LinearShape(3, 24, True), LinearShape(3, 1100, False)]
    done = tuning.measure([shape] * 3, linears, torch.float16, CPU, found, seconds, never_late, 1.0, SCALE)
    assert done
    assert all(tried[key] == set(candidates(key)) for key in found.tiles), "a candidate computes something else"
    assert all(found.tiles[key] == candidates(key)[0] for key in found.tiles), "equally fast, yet another was taken"
    names = [key.kernel for key in found.tiles]
    assert set(names) == {"split", "merge", "extend", "linear", "launch"}
    assert names.count("linear") == 2, "one tile per length, not one per layer"


def test_the_rates_of_sharing_are_measured_once_per_device(monkeypatch):
    rates = Rates(1e-6, 1e-9, 2e-6, 3e-9, 1e-8)
    measured = []

    def sharing_of(self, _seconds):
        measured.append(self)
        points = [Siblings(num, prefix, 2, 64) for num in (2, 8) for prefix in (128, 4096)]
        return [SharingTimes(each, plain_seconds(each, rates), shared_seconds(each, rates)) for each in points]

    monkeypatch.setattr(AttentionCases, "sharing", sharing_of)
    found = TuningResult()
    args = [AttentionShape(2, 1, 16, 16)], [], torch.float32, CPU, found, lambda _run: 1.0, never_late, 1.0, SCALE
    assert tuning.measure(*args) and tuning.measure(*args) and len(measured) == 1
    assert found.rates == pytest.approx(rates) and rates_in_use() == found.rates


@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90, 100])
def test_all_candidates_fit_the_chip(arch, tmp_path):
    env = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    env["PYTHONPATH"] = f"{ROOT / 'engine'}{os.pathsep}{ROOT / 'kernels'}"
    command = [sys.executable, str(ROOT / "tests/bench/aot.py"), "--candidates", "--arch", str(arch)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f"sm_{arch} ") > 60 and done.stdout.endswith("all fit\n")
    assert ("early linear row" in done.stdout) == (arch >= 90)


def test_a_device_is_measured_once_and_then_read_from_its_file(tmp_path, monkeypatch):
    """Only the device is fake: its name, its times and its memory."""
    monkeypatch.setenv("TREECHAT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tuning_file, "identity", lambda _device: WHO)
    monkeypatch.setattr(torch.random, "fork_rng", lambda _devices: nullcontext())
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    calls = []

    def measured(_shapes, _linears, _dtype, _device, found, _seconds):
        calls.append(dict(found.tiles))
        if len(calls) == 1:
            found.tiles[KEY] = candidates(KEY)[1]
            raise torch.OutOfMemoryError("the device is full")
        found.tiles[LAUNCH] = EARLY_LAUNCH
        found.rates = H100._replace(score_s=1e-11)
        return True

    monkeypatch.setattr(tuning, "measure", measured)
    device = torch.device("cuda")
    for _ in range(3):
        tiles = tuning.prepare([], [], torch.bfloat16, device)
    assert [len(before) for before in calls] == [0, 1, 2]
    assert tiles == {KEY: candidates(KEY)[1], LAUNCH: EARLY_LAUNCH}
    assert rates_in_use() == H100._replace(score_s=1e-11)
    monkeypatch.setenv("TREECHAT_TUNE", "off")
    for where in (device, CPU):
        assert not tuning.prepare([], [], torch.bfloat16, where)
    assert len(calls) == 3
