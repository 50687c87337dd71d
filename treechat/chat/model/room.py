"""Load another model while one is loaded. The old model is closed first only if memory is short. Blocking."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from treechat.chat.model.chat_model import ChatModel
from treechat.errors import TreechatError
from treechat.models import Progress, resolve

LoadNamed = Callable[[str | None, Callable[[Progress], None]], ChatModel]
"""Load the model of a spec (None: the default model) and report the progress."""

_SPARE_BYTES = 500_000_000
"""Memory of an engine without its weights and its cache."""

_WIDENED = 2
"""Weights of two bytes take four if the machine is not faster with two."""


def load_another(
    spec: str | None,
    load: LoadNamed,
    make_room: Callable[[], None],
    progress: Callable[[Progress], None],
    lacks_room: Callable[[str | None, Callable[[Progress], None]], bool] | None = None,
) -> ChatModel:
    """Load a model while another is loaded. The old model is closed only if both do not fit into memory.

    A model that cannot be found or fetched fails before the old one is closed. Raises the errors of `load`.

    spec: the model to load; None is the default model.
    load: loads it.
    make_room: closes the old model.
    progress: called with each step.
    lacks_room: returns whether the new model does not fit beside the old one; None compares with the free memory.
    """
    if (lacks_room or weights_lack_room)(spec, progress):
        make_room()
        return load(spec, progress)
    try:
        return load(spec, progress)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    make_room()
    return load(spec, progress)


def weights_lack_room(spec: str | None, progress: Callable[[Progress], None]) -> bool:
    """Return whether the model's weights do not fit into the free memory. Fetches the model if needed."""
    path = resolve(spec, progress).path
    num_bytes = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    free = _available_bytes()
    return free is not None and num_bytes * _WIDENED + _SPARE_BYTES > free


def _available_bytes() -> int | None:
    """Return the bytes that a process can get without swapping; None if the system does not report it."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error or one of its causes reports a lack of memory."""
    current: BaseException | None = error
    while current is not None:
        text = current.message if isinstance(current, TreechatError) else str(current)
        if isinstance(current, MemoryError) or type(current).__name__ == "OutOfMemoryError":
            return True
        if any(words in text for words in ("too little memory", "can't allocate memory", "out of memory")):
            return True
        current = current.__cause__
    return False
