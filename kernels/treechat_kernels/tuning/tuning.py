"""Chooses tiles by measuring them on the device, once: the choice is kept in a file of the cache directory.

A candidate is taken where it computes the same and is clearly faster than the fixed tile. There is a budget of seconds
per start, of which compiling takes most: what was not measured within it keeps its fixed tile, and is measured at the
next start. A file that is damaged, or of another device, version or source, is as none. TREECHAT_TUNE=off measures
nothing and reads no file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from treechat_kernels.prefix_sharing import Rates
from treechat_kernels.tiles import Tile, TileKey, force_tile, use_tiles
from treechat_kernels.tuning.candidates import candidates

# Of a fixed tile's time: a candidate must stay below, as timings are not exact.
_FASTER = 0.97
# Of the largest value: 16-bit results that were summed in another order differ by less.
_TOLERANCE = 2e-2
# Bytes of a file that is read: a whole one has some kilobytes.
_MAX_FILE = 1 << 20
logger = logging.getLogger(__name__)


class Case(NamedTuple):
    """Something that is launched with the tile of `key`, as the engine would, and gives what it computed."""

    key: TileKey
    run: Callable[[], torch.Tensor]


# The seconds that a call takes on the device.
Timer = Callable[[Callable[[], object]], float]


@dataclass
class TuningResult:
    """What was measured on a device so far. rates: of `sharing.py`, None before they were."""

    tiles: dict[TileKey, Tile] = field(default_factory=dict)
    rates: Rates | None = None


def is_on() -> bool:
    return os.environ.get("TREECHAT_TUNE", "").lower() != "off"


def identity(device: torch.device) -> dict[str, str]:
    """What a measurement holds for: the device, the versions that compile, and the kernels' own text."""
    import triton

    source = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        source.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return {
        "device": torch.cuda.get_device_name(device),
        "capability": ".".join(str(part) for part in torch.cuda.get_device_capability(device)),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "source": source.hexdigest(),
    }


def file_of(who: Mapping[str, str]) -> Path:
    """Where this device's choice is kept: TREECHAT_CACHE_DIR, or treechat's folder in the user's cache directory."""
    own = os.environ.get("TREECHAT_CACHE_DIR")
    folder = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "treechat"
    return folder / f"kernels-{hashlib.sha256(json.dumps(who, sort_keys=True).encode()).hexdigest()[:16]}.json"


def load(path: Path, who: Mapping[str, str]) -> TuningResult:
    """What the file says; nothing where it is missing, damaged, or of another identity. Only candidates are taken."""
    found = TuningResult()
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(_MAX_FILE))
        if data["identity"] != dict(who):
            return found
        for name, values in data["tiles"].items():
            key, tile = TileKey.parse(name), Tile(*values)
            if tile in candidates(key):
                found.tiles[key] = tile
        rates = data["rates"]
        if rates is not None and (read := Rates(*(float(rate) for rate in rates))).are_sound:
            found.rates = read
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError, AttributeError, AssertionError, RecursionError) as error:
        logger.info("%s is left out: %s", path, error)
        return TuningResult()
    return found


def save(path: Path, who: Mapping[str, str], found: TuningResult) -> None:
    """Writes the file, whole or not at all. Where that fails the device is measured again at the next start."""
    tiles = {str(key): list(tile) for key, tile in sorted(found.tiles.items(), key=str)}
    text = json.dumps({"identity": dict(who), "tiles": tiles, "rates": found.rates}, indent=1)
    written: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
            written = Path(file.name)
            file.write(text)
        written.replace(path)
    except OSError as error:
        logger.warning("what was measured of the kernels cannot be kept: %s", error)
        if written is not None:
            written.unlink(missing_ok=True)


def tune(
    cases: Iterable[Case], found: TuningResult, seconds: Timer, clock: Callable[[], float], deadline: float
) -> bool:
    """Adds to `found` a tile for each case that has none, until the deadline. Returns whether all have one.

    What was found is in use while the next is measured.
    """
    with use_tiles(found.tiles):
        for case in cases:
            if case.key in found.tiles:
                continue
            tile = _fastest(case, seconds, lambda: clock() >= deadline)
            if tile is None:
                return False
            found.tiles[case.key] = tile
    return True


def _fastest(case: Case, seconds: Timer, is_late: Callable[[], bool]) -> Tile | None:
    """The tile to take, None where time is up before all were measured."""
    fixed, *others = candidates(case.key)
    if not others:
        return fixed
    if is_late():
        return None
    best = fixed
    with force_tile(case.key, fixed):
        expected = case.run().float()
        best_s = _FASTER * seconds(case.run)
    for tile in others:
        if is_late():
            return None
        with force_tile(case.key, tile):
            taken_s = _seconds(case, expected, seconds)
        if taken_s is not None and taken_s < best_s:
            best, best_s = tile, taken_s
    logger.info("%s: %s", case.key, best)
    return best


def _seconds(case: Case, expected: torch.Tensor, seconds: Timer) -> float | None:
    """What a candidate takes, None where it cannot be launched or computes something else."""
    try:
        got = case.run().float()
        largest = float(expected.abs().max())
        if not float((got - expected).abs().max()) <= _TOLERANCE * largest:
            logger.warning("a tile of %s computes something else and is not used", case.key)
            return None
        return seconds(case.run)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - triton raises its own errors for what a chip cannot launch
        logger.info("a tile of %s cannot be launched: %s", case.key, error)
        return None
