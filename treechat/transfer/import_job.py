"""Import files into the store: each conversation completely or not at all, with progress, and stoppable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from treechat.errors import FormatError, TreechatError
from treechat.formats.document import ImportReport
from treechat.formats.importers.importer import Importer
from treechat.formats.importers.registry import importer_for, unknown_format
from treechat.formats.reading.inputs import Input, inputs_of
from treechat.store import Store
from treechat.transfer.import_writer import DryRunNodes, Intake


def _ignore() -> None:
    """No-op callback."""


class Import:
    """One import of several files into one database.

    report: the imported conversations, and the errors.
    name: the file that is read now.
    num_bytes: bytes read so far, of all files.
    num_read: conversations read so far.
    titles: titles of the formats found.
    """

    def __init__(
        self,
        store: Store,
        importer: Importer | None = None,
        *,
        dry_run: bool = False,
        progress: Callable[[], None] = _ignore,
    ) -> None:
        """Prepare an import; `take` reads a file.

        store: the open database.
        importer: the format; None recognises it by the content.
        dry_run: count, but change nothing.
        progress: called while files are read; it may raise to stop the import.
        """
        self.store, self.importer, self.dry_run = store, importer, dry_run
        self.report = ImportReport()
        self.name, self.num_bytes = "", 0
        self.num_read = 0
        self.titles: list[str] = []
        self._progress = progress
        self._planned: DryRunNodes = {}

    def take(self, path: Path, stdin: BinaryIO | None = None) -> None:
        """Import all files of a file, a zip or a folder. stdin: read for the path `-`. Raises StoreError."""
        if not self.dry_run:
            self.store.drop_dead_imports(after_portion=self._progress)
        name = "standard input" if stdin is not None and str(path) == "-" else path.name
        try:
            with inputs_of(path, stdin, self._was_read) as files:
                self._take_all(files, name)
        except OSError as error:
            self.report.fail(name, error.strerror or type(error).__name__)
        except FormatError as error:
            self.report.fail(name, str(error))

    def _was_read(self, num_bytes: int) -> None:
        self.num_bytes += num_bytes
        self._progress()

    def _take_all(self, files: Iterator[Input], name: str) -> None:
        """Import each file. One that cannot be read does not stop the others."""
        num_read = num_other = 0
        for file in files:
            try:
                importer = self.importer or importer_for(file)
                if importer is None:
                    num_other += 1
                    continue
                num_read += 1
                self._read(file, importer)
            except OSError as error:
                self.report.fail(file.name, error.strerror or type(error).__name__)
            except FormatError as error:
                self.report.fail(file.name, str(error))
                num_read += 1
        if not num_read:
            raise unknown_format(name)
        if num_other:
            files_are = "1 other file" if num_other == 1 else f"{num_other:,} other files"
            self.report.drop(name, f"{files_are} in it, without conversations")

    def _read(self, file: Input, importer: Importer) -> None:
        self.name = file.name
        if importer.title not in self.titles:
            self.titles.append(importer.title)
        with Intake(self.store, self.report, self._planned if self.dry_run else None, self._progress) as intake:
            for document in importer.read(file, self.report):
                intake.take(document, importer.name)
                self.num_read += 1
                self._progress()


class _Stopped(Exception):
    """The user stopped the import."""


class ImportJob:
    """An import in a thread, with its own connection to the database: the window does not wait for it.

    paths: the files.
    dry_run: count, but change nothing.
    total_bytes: the bytes to read; None if a folder or a zip is among the files.
    error: the error that ended the import.
    is_stopped: whether the user stopped it.
    """

    def __init__(self, store: Store, paths: Sequence[Path], dry_run: bool) -> None:
        self.paths, self.dry_run = tuple(paths), dry_run
        self.error: TreechatError | None = None
        self.total_bytes = _size(self.paths)
        self.is_stopped = False
        self._stop = threading.Event()
        self._run = Import(store, dry_run=dry_run, progress=self._check)
        self._thread = threading.Thread(target=self._work, name="import", daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    @property
    def report(self) -> ImportReport:
        return self._run.report

    @property
    def titles(self) -> list[str]:
        """Titles of the formats found so far."""
        return self._run.titles

    @property
    def num_read(self) -> int:
        """Conversations read so far, including those that the store had already."""
        return self._run.num_read

    @property
    def num_bytes(self) -> int:
        return self._run.num_bytes

    def stop(self) -> None:
        """Stop the import. Conversations imported so far stay, each complete."""
        self._stop.set()

    def wait(self) -> None:
        self._thread.join()

    def _check(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _work(self) -> None:
        shared = self._run.store
        try:
            if shared.path is None:
                self._take()
            else:
                with Store.open(shared.path) as self._run.store:
                    self._take()
        except _Stopped:
            self.is_stopped = True
        except TreechatError as error:
            self.error = error

    def _take(self) -> None:
        for path in self.paths:
            self._check()
            self._run.take(path)


def _size(paths: Sequence[Path]) -> int | None:
    try:
        sizes = [path.stat().st_size if path.is_file() and path.suffix.lower() != ".zip" else None for path in paths]
    except OSError:
        return None
    return None if None in sizes else sum(filter(None, sizes))
