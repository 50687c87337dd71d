"""Persist each model's warmest KV prefixes between runs, in a directory of the cache."""

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
"""Files of a model that was not used for this time are removed."""


class KVReport(Protocol):
    """The result of saving or loading: the number of tokens, and notes on entries left out."""

    @property
    def num_tokens(self) -> int: ...

    @property
    def notes(self) -> Sequence[str]: ...


class PersistentEngine(Protocol):
    """An engine in this process that saves and loads KV."""

    def save_kv(self, directory: Path, budget_bytes: int | None = None) -> KVReport: ...

    def load_kv(self, directory: Path) -> KVReport: ...


class KVFiles:
    """Load the saved KV of a model after the model is loaded, and save its warmest prefixes before it is closed.

    The KV can be computed again, so errors are logged and not raised.
    """

    def __init__(self, model_name: str, max_bytes: int) -> None:
        self.directory = kv_dir(model_name)
        self._max_bytes = max_bytes

    def load(self, engine: PersistentEngine) -> int:
        """Find the saved KV; returns the number of its tokens. The engine reads the KV when a request needs it."""
        try:
            remove_old(self.directory.parent, self.directory)
            found = engine.load_kv(self.directory)
        except OSError as error:
            logger.warning("saved KV cannot be read: %s", error)
            return 0
        for note in found.notes:
            logger.info("saved KV is skipped: %s", note)
        return found.num_tokens

    def save(self, engine: PersistentEngine) -> None:
        """Save the warmest prefixes, within the byte budget."""
        try:
            # The files contain the conversations, like the database: only the user may read them.
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            engine.save_kv(self.directory, self._max_bytes)
            self.directory.touch()
        except OSError as error:
            logger.warning("KV is not saved: %s", error)


def kv_dir(model_name: str) -> Path:
    """Return the directory of a model's KV. Two models never share one."""
    words = "".join(c if c.isalnum() or c in "-_." else "-" for c in model_name)[-60:].strip(".")
    return cache_dir() / "kv" / f"{words}-{hashlib.sha256(model_name.encode()).hexdigest()[:8]}"


def remove_old(root: Path, current: Path) -> None:
    """Remove the directories of models that were not used for `MAX_AGE_S`. Raises OSError."""
    for path in root.iterdir() if root.is_dir() else ():
        if path != current and path.is_dir() and time.time() - path.stat().st_mtime > MAX_AGE_S:
            shutil.rmtree(path, ignore_errors=True)
