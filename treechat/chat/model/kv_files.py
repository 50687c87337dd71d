"""KV from one start to the next: the warmest prefixes of each model, in a directory of the cache."""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from treechat.paths import cache_dir

logger = logging.getLogger(__name__)

MAX_AGE_S = 30 * 24 * 3600
"""What was kept for a model that was not used for so long is removed."""


class KVReport(Protocol):
    """What an engine wrote or found."""

    @property
    def num_tokens(self) -> int: ...

    @property
    def notes(self) -> Sequence[str]: ...


class PersistentEngine(Protocol):
    """An engine in this process, whose KV can be kept."""

    def save_kv(self, directory: Path, budget_bytes: int | None = None) -> KVReport: ...

    def load_kv(self, directory: Path) -> KVReport: ...


class KVFiles:
    """Finds what was kept for a model when it is loaded, and keeps its warmest prefixes when it is closed.

    The files can be computed again: whatever goes wrong with them is logged and is no reason to fail.
    """

    def __init__(self, model_name: str, max_bytes: int) -> None:
        self.directory = kv_dir(model_name)
        self._max_bytes = max_bytes

    def load(self, engine: PersistentEngine) -> int:
        """Tokens that need not be computed again. Their KV is read when it is wanted."""
        try:
            remove_old(self.directory.parent, self.directory)
            found = engine.load_kv(self.directory)
        except OSError as error:
            logger.warning("kept KV cannot be read: %s", error)
            return 0
        for note in found.notes:
            logger.info("kept KV is left out: %s", note)
        return found.num_tokens

    def save(self, engine: PersistentEngine) -> None:
        """Writes the warmest prefixes, as many as the budget allows."""
        try:
            # What was said is in it, as it is in the database: for the user's eyes.
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            engine.save_kv(self.directory, self._max_bytes)
            self.directory.touch()
        except OSError as error:
            logger.warning("KV is not kept: %s", error)


def kv_dir(model_name: str) -> Path:
    """Where a model's KV is kept; two models never share a directory."""
    words = "".join(c if c.isalnum() or c in "-_." else "-" for c in model_name)[-60:].strip(".")
    return cache_dir() / "kv" / f"{words}-{hashlib.sha256(model_name.encode()).hexdigest()[:8]}"


def remove_old(root: Path, current: Path) -> None:
    """Remove the directories of models that were not used for long. Raises OSError."""
    for path in root.iterdir() if root.is_dir() else ():
        if path != current and path.is_dir() and time.time() - path.stat().st_mtime > MAX_AGE_S:
            shutil.rmtree(path, ignore_errors=True)
