"""Getting another model while one is up: the old one makes room only where memory asks for it. Blocking."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from treechat.chat.model.chat_model import ChatModel
from treechat.errors import TreechatError
from treechat.models import Progress, resolve

LoadNamed = Callable[[str | None, Callable[[Progress], None]], ChatModel]
"""Loads the model that a spec names (None: the default one), telling how far it is."""

_SPARE_BYTES = 500_000_000
"""What an engine takes beside its weights before it has a cache."""

_WIDENED = 2
"""Weights of two bytes are computed in four where the machine is no faster with two."""


def load_another(
    spec: str | None,
    load: LoadNamed,
    make_room: Callable[[], None],
    progress: Callable[[Progress], None],
    lacks_room: Callable[[str | None, Callable[[Progress], None]], bool] | None = None,
) -> ChatModel:
    """Load a model while another is up. `make_room` closes that one; it is called only where both do not fit.

    A model that cannot be found or fetched fails before anything is closed. lacks_room: None asks the system. Raises
    what `load` raises.
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
    """Whether the model's weights would not fit into the memory that is free now; fetches it if need be."""
    path = resolve(spec, progress).path
    num_bytes = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    free = _available_bytes()
    return free is not None and num_bytes * _WIDENED + _SPARE_BYTES > free


def _available_bytes() -> int | None:
    """Memory that a process can get without swapping; None where the system does not tell."""
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
    """Whether an error, or what caused it, says that memory ran out."""
    current: BaseException | None = error
    while current is not None:
        text = current.message if isinstance(current, TreechatError) else str(current)
        if isinstance(current, MemoryError) or type(current).__name__ == "OutOfMemoryError":
            return True
        if any(words in text for words in ("too little memory", "can't allocate memory", "out of memory")):
            return True
        current = current.__cause__
    return False
