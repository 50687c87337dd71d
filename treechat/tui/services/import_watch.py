"""Importing in the background: its window, how far it is, and what is said at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from textual.timer import Timer

from treechat.config import Config
from treechat.transfer.import_job import ImportJob
from treechat.tui.actions.settings import Configuring
from treechat.tui.screens.importing import ImportScreen, progress, summary

LOOK_S = 0.25


class Importing(Configuring):
    """One import runs at a time, and goes on while the conversations are read and written."""

    def __init__(self, store_path: Path | None, config: Config, conversation_id: str | None) -> None:
        super().__init__(store_path, config, conversation_id)
        self._import: ImportJob | None = None
        self._import_timer: Timer | None = None

    def action_import(self) -> None:
        screen = ImportScreen(self._start_import, self._import)

        def done(conversation_id: str | None) -> None:
            if screen.is_reported and self._import is not None and self._import.is_done:
                self._import = None
            if conversation_id is not None:
                self.switch_to(conversation_id)

        self.ask(screen, done)

    def _start_import(self, paths: Sequence[Path], dry_run: bool) -> ImportJob:
        job = ImportJob(self.store, paths, dry_run)
        if not dry_run:
            self._import = job
            self._import_timer = self.set_interval(LOOK_S, self._watch_import)
        return job

    def _watch_import(self) -> None:
        job = self._import
        if self.is_up:
            self.draw_activity()
        if job is not None and not job.is_done:
            return
        if self._import_timer is not None:
            self._import_timer.stop()
        if job is not None and self.is_up and not isinstance(self.screen, ImportScreen):
            is_wrong = job.error is not None or bool(job.report.failed)
            text = "\n".join([*summary(job)[:3], "f5 shows what came in"])
            self.notify(text, severity="error" if is_wrong else "information", timeout=10, markup=False)

    def draw_activity(self) -> None:
        super().draw_activity()
        job = self._import
        if job is not None and not job.is_done:
            parts = (self.status.activity, f"importing {progress(job)}")
            self.status.activity = " · ".join(filter(None, parts))

    def finish_import(self) -> None:
        """When the app is left: what is in stays, each conversation whole."""
        if self._import is not None:
            self._import.stop()
            self._import.wait()
