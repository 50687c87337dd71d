"""The inputs of an import: a file, the members of a zip, or the files of a folder.

Zip members are read as streams and not extracted under their own paths. A zip is limited in its number of members and
in its expanded size.
"""

from __future__ import annotations

import io
import lzma
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from treechat.errors import FormatError
from treechat.formats.reading.refusals import HEAD_BYTES, refuse_non_export

MAX_FILES = 100_000
"""Limit on the files of one folder."""

MAX_EXPANSION = 250
"""Limit on expanded size / zip size. JSON of conversations compresses about 10 times, a zip bomb about 1,000 times."""

FREE_EXPANSION_BYTES = 256 * 1024 * 1024
"""Expanded size that is allowed for any zip, however small."""

MAX_DIRECTORY_BYTES = 64 * 1024 * 1024
"""Limit on a zip's central directory, which is read at once."""

SUFFIXES = (".json", ".jsonl", ".ndjson", ".db", ".sqlite", ".sqlite3")
"""Suffixes of the files in a folder or zip that are read."""

SQLITE_MAGIC = b"SQLite format 3\0"

Progress = Callable[[int], None]
"""A callback that takes the number of bytes read since the last call."""

ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True, slots=True)
class Input:
    """One file to read.

    name: for the report.
    size: bytes, expanded if it is a member of a zip.
    opener: opens a raw stream.
    path: path on disk, None for a member of a zip.
    progress: see `Progress`.
    """

    name: str
    size: int
    opener: Callable[[], io.RawIOBase | BinaryIO]
    path: Path | None = None
    progress: Progress | None = None

    def open(self) -> BinaryIO:
        """Return a new stream from the start. Raises OSError and FormatError, also while it is read."""
        return io.BufferedReader(_CountingStream(self.opener(), self.progress))

    def peek(self) -> BinaryIO:
        """Like `open`, without reporting progress."""
        return io.BufferedReader(_CountingStream(self.opener(), None))

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        """Yield the file's path, or that of a temporary copy. Raises like `open`."""
        if self.path is not None:
            yield self.path
            return
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if self.size > free // 2:
            raise FormatError(
                f"{self.name} needs {self.size / 2**20:,.0f} MB of temporary space, and {free / 2**20:,.0f} are free",
                "Unpack the zip, and import the file itself",
            )
        with self.open() as stream, _temporary_copy(stream) as copy:
            yield copy

    @property
    def is_sqlite(self) -> bool:
        """Whether the file begins like a SQLite database. Raises like `open`."""
        with self.peek() as stream:
            return stream.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC


class _CountingStream(io.RawIOBase):
    """A stream that reports the bytes read, and raises FormatError for a damaged zip."""

    def __init__(self, stream: io.RawIOBase | BinaryIO, progress: Progress | None) -> None:
        self._stream, self._progress = stream, progress

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._stream.read(len(buffer))
        except ZIP_ERRORS as error:
            raise FormatError(f"the zip is damaged or cannot be read ({error})") from error
        buffer[: len(data)] = data
        if self._progress is not None:
            self._progress(len(data))
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


@contextmanager
def inputs_of(path: Path, stdin: BinaryIO | None = None, progress: Progress | None = None) -> Iterator[Iterator[Input]]:
    """Yield the files at `path`. Raises OSError and FormatError.

    path: a file, zip, folder or pipe, or `-` for `stdin`.
    stdin: the stream for `-`; if None, `-` is an ordinary path.
    progress: see `Progress`.
    """
    if str(path) == "-" and stdin is not None:
        with _temporary_copy(stdin) as file, _file_inputs(file, "standard input", progress) as inputs:
            yield inputs
    elif path.is_dir():
        yield _folder_inputs(path, progress)
    elif path.exists() and not path.is_file():
        # A pipe, such as a shell's <(command), can be read only once.
        with path.open("rb") as pipe, _temporary_copy(pipe) as file, _file_inputs(file, path.name, progress) as inputs:
            yield inputs
    else:
        with _file_inputs(path, path.name, progress) as inputs:
            yield inputs


@contextmanager
def _temporary_copy(stream: BinaryIO) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(prefix="treechat-") as file:
        shutil.copyfileobj(stream, file)
        file.flush()
        yield Path(file.name)


@contextmanager
def _file_inputs(path: Path, name: str, progress: Progress | None) -> Iterator[Iterator[Input]]:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        refuse_non_export(head, name)
        if head.startswith((b"PK\3\4", b"PK\5\6", b"PK\7\x08")):
            with _open_archive(file, name) as archive:
                yield _zip_inputs(archive, name, path.stat().st_size, progress)
            return
    yield iter([Input(name, path.stat().st_size, partial(_open_file, path), path, progress)])


def _open_file(path: Path) -> BinaryIO:
    return path.open("rb")


def _folder_inputs(path: Path, progress: Progress | None) -> Iterator[Input]:
    num_files = 0
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            if not _may_hold_conversations(name) or not file.is_file():
                continue
            num_files += 1
            if num_files > MAX_FILES:
                raise FormatError(f"{path.name} holds more than {MAX_FILES:,} files", "Import its folders one by one")
            yield Input(str(file.relative_to(path)), file.stat().st_size, partial(_open_file, file), file, progress)


def _may_hold_conversations(name: str) -> bool:
    """Return whether the file may contain conversations. Excludes the `._` companion files of macOS."""
    return name.lower().endswith(SUFFIXES) and not name.startswith("._")


def _open_archive(file: BinaryIO, name: str) -> zipfile.ZipFile:
    _check_directory(file, name)
    try:
        return zipfile.ZipFile(file)
    except ZIP_ERRORS as error:
        raise FormatError(f"{name} is a damaged zip ({error})", "Download it again") from error


def _check_directory(file: BinaryIO, name: str) -> None:
    """Refuse a zip whose central directory would fill memory, before it is read. Raises FormatError."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 65_557))
    tail = file.read()
    end = tail.rfind(b"PK\5\6")
    if end >= 0 and len(tail) >= end + 22:
        directory = int.from_bytes(tail[end + 12 : end + 16], "little")
        if tail[max(0, end - 20) : end].startswith(b"PK\6\7"):
            # A 64-bit zip: the real size is in a separate record, directly before the last two records.
            record = tail[max(0, end - 76) : end - 20]
            directory = int.from_bytes(record[40:48], "little") if record.startswith(b"PK\6\6") else 2**64
        if directory > MAX_DIRECTORY_BYTES:
            raise FormatError(f"{name} has too many members", "Unpack it, and import the folder")
    file.seek(0)


def _zip_inputs(archive: zipfile.ZipFile, name: str, size: int, progress: Progress | None) -> Iterator[Input]:
    budget = _ExpansionBudget(name, max(FREE_EXPANSION_BYTES, size * MAX_EXPANSION))
    for info in sorted(archive.infolist(), key=lambda info: info.filename):
        if info.is_dir() or not _may_hold_conversations(info.filename.rpartition("/")[2]):
            continue
        yield Input(
            f"{name}/{info.filename}",
            info.file_size,
            partial(_ZipMember, archive, info, budget),
            progress=progress,
        )


class _ExpansionBudget:
    """The number of bytes that all members of a zip together may still expand to."""

    def __init__(self, name: str, num_bytes: int) -> None:
        self.name, self.num_bytes_left = name, num_bytes

    def spend(self, num_bytes: int) -> None:
        """Subtract the bytes just read. Raises FormatError if the budget is exceeded."""
        self.num_bytes_left -= num_bytes
        if self.num_bytes_left < 0:
            raise FormatError(
                f"{self.name} expands to far more than a zip of conversations would",
                "The import of this zip stops here",
            )


class _ZipMember(io.RawIOBase):
    """One member of a zip, decompressed while it is read."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: _ExpansionBudget) -> None:
        try:
            self._stream, self._budget = archive.open(info), budget
        except ZIP_ERRORS as error:
            raise FormatError(f"{info.filename} cannot be read ({error})", "Unpack the zip first") from error

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._budget.spend(len(data))
        return data

    def close(self) -> None:
        self._stream.close()
        super().close()
