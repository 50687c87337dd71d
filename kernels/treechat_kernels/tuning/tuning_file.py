"""Persist a device's tiles and rates between starts, in a file of the cache directory.

The file's name depends on the device, the versions and the kernels' source. A damaged file, or one of another device,
version or source, counts as missing. TREECHAT_TUNE=off reads no file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from treechat_kernels.prefix_sharing import Rates
from treechat_kernels.tiles import Tile, TileKey
from treechat_kernels.tuning.candidates import candidates

# Bytes that are read of a file; a complete one has some kilobytes.
_MAX_FILE = 1 << 20
logger = logging.getLogger(__name__)


@dataclass
class TuningResult:
    """The measurements of a device so far. rates: those of `prefix_sharing`; None until measured."""

    tiles: dict[TileKey, Tile] = field(default_factory=dict)
    rates: Rates | None = None


def is_on() -> bool:
    return os.environ.get("TREECHAT_TUNE", "").lower() != "off"


def identity(device: torch.device) -> dict[str, str]:
    """Return what a measurement depends on: the device, the versions of torch and triton, and the kernels' source."""
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
    """Return the file of this identity, in TREECHAT_CACHE_DIR or treechat's folder of the user's cache directory."""
    own = os.environ.get("TREECHAT_CACHE_DIR")
    folder = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "treechat"
    return folder / f"kernels-{hashlib.sha256(json.dumps(who, sort_keys=True).encode()).hexdigest()[:16]}.json"


def load(path: Path, who: Mapping[str, str]) -> TuningResult:
    """Read the measurements; none if the file is missing, damaged or of another identity. Only candidates are taken."""
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
        logger.info("%s is ignored: %s", path, error)
        return TuningResult()
    return found


def save(path: Path, who: Mapping[str, str], found: TuningResult) -> None:
    """Write the file, completely or not at all. On failure the device is measured again at the next start."""
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
        logger.warning("the measurements of the kernels cannot be saved: %s", error)
        if written is not None:
            written.unlink(missing_ok=True)
