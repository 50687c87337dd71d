"""Progress of a model's fetch, conversion and load, on one line of standard error."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from treechat.cli.output import size

if TYPE_CHECKING:
    from treechat.config import Config
    from treechat.models import Progress
    from treechat_engine import EngineConfig


def engine_config(config: Config) -> EngineConfig:
    """The engine's part of the configuration."""
    from treechat_engine import EngineConfig

    return EngineConfig(
        device=config.device,
        dtype=config.dtype,
        kv_tokens=config.kv_tokens,
        host_tokens=config.host_tokens,
        max_batch=config.max_batch,
        num_threads=config.num_threads,
        deterministic=config.deterministic,
    )


class ProgressLine:
    """A progress callback. Without a terminal it prints one line each for the slow stages, fetch and convert."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._printed: set[str] = set()
        self._drawn = False

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def __call__(self, progress: Progress) -> None:
        if self._live:
            self._drawn = True
            sys.stderr.write(f"\r\x1b[K{describe(progress)}")
            sys.stderr.flush()
        elif progress.stage in ("fetch", "convert") and progress.stage not in self._printed:
            self._printed.add(progress.stage)
            sys.stderr.write(f"{progress.text}\n")


def describe(progress: Progress) -> str:
    """One line: the step and its progress."""
    if progress.stage == "fetch" and progress.total:
        return f"{progress.text}  {size(progress.done)} of {size(progress.total)}"
    if progress.total and progress.total > 1:
        return f"{progress.text}  {100 * progress.done // progress.total} %"
    return f"{progress.text} …"
