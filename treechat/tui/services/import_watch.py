"""Run one import in the background: its progress in the status line and a notification at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textual.timer import Timer

from treechat.transfer.import_job import ImportJob
from treechat.tui.screens.importing import ImportScreen, progress, summary

if TYPE_CHECKING:
    from treechat.tui.window import Window

LOOK_S = 0.25
"""Seconds between two updates of the progress."""


class ImportWatch:
    """At most one import runs at a time. Conversations can be read and written meanwhile.

    job: the import that runs, or that ended and was not reported yet.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self._timer: Timer | None = None
        self.job: ImportJob | None = None

    def start(self, paths: Sequence[Path], dry_run: bool) -> ImportJob:
        """Start an import. A dry run is not watched: only its screen shows it."""
        job = ImportJob(self._window.store, paths, dry_run)
        if not dry_run:
            self.job = job
            self._timer = self._window.set_interval(LOOK_S, self._look)
        return job

    def forget_reported(self) -> None:
        """Drop the import if it has ended, after its report was shown."""
        if self.job is not None and self.job.is_done:
            self.job = None

    def _look(self) -> None:
        window, job = self._window, self.job
        if window.is_up:
            window.draw_activity()
        if job is not None and not job.is_done:
            return
        if self._timer is not None:
            self._timer.stop()
        if job is not None and window.is_up and not isinstance(window.screen, ImportScreen):
            is_wrong = job.error is not None or bool(job.report.failed)
            text = "\n".join([*summary(job)[:3], "f5 shows the report"])
            window.notify(text, severity="error" if is_wrong else "information", timeout=10, markup=False)

    def draw_activity(self) -> None:
        """Set `importing` of the status line."""
        is_running = self.job is not None and not self.job.is_done
        self._window.status.set("importing", f"importing {progress(self.job)}" if self.job and is_running else "")

    def finish(self) -> None:
        """Stop the import and wait for its end. The conversations imported so far stay, each of them whole."""
        if self.job is not None:
            self.job.stop()
            self.job.wait()
