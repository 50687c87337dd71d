"""What an import reads: a file, the members of a zip, the files of a folder. Members are read, never extracted.

A zip is bounded: in the number of its members, and in what they expand to.
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
"""Files of one folder or zip."""

MAX_EXPANSION = 250
"""Times a zip may grow while it is read. JSON of conversations shrinks to a tenth, a bomb to a thousandth."""

FREE_EXPANSION_BYTES = 256 * 1024 * 1024
"""What any zip may expand to, however small it is."""

MAX_DIRECTORY_BYTES = 64 * 1024 * 1024
"""Of a zip's list of members, which is read at once."""

SUFFIXES = (".json", ".jsonl", ".ndjson", ".db", ".sqlite", ".sqlite3")
"""Of the files in a folder or zip that are looked at."""

SQLITE_MAGIC = b"SQLite format 3\0"

Progress = Callable[[int], None]
"""Called with the number of bytes that were read since the last call."""

ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True, slots=True)
class Input:
    """One file to read. size: bytes. path: where it lies on disk, None for a member of a zip."""

    name: str
    size: int
    opener: Callable[[], io.RawIOBase | BinaryIO]
    path: Path | None = None
    progress: Progress | None = None

    def open(self) -> BinaryIO:
        """A stream of its own, from the start. Raises OSError, and FormatError, also while it is read."""
        return io.BufferedReader(_CountingStream(self.opener(), self.progress))

    def peek(self) -> BinaryIO:
        """As `open`, and no progress is made."""
        return io.BufferedReader(_CountingStream(self.opener(), None))

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        """Where it lies: its own path, or that of a copy, which is gone afterwards. Raises as `open`."""
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
        with self.peek() as stream:
            return stream.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC


class _CountingStream(io.RawIOBase):
    """A stream that tells how much was read of it, and in which a damaged zip is a FormatError."""

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
    """The files at `path`. stdin: what `-` stands for. Raises OSError and FormatError."""
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
    """Whether it may hold conversations. macOS puts a file of its own beside each, named alike behind `._`."""
    return name.lower().endswith(SUFFIXES) and not name.startswith("._")


def _open_archive(file: BinaryIO, name: str) -> zipfile.ZipFile:
    _check_directory(file, name)
    try:
        return zipfile.ZipFile(file)
    except ZIP_ERRORS as error:
        raise FormatError(f"{name} is a damaged zip ({error})", "Download it again") from error


def _check_directory(file: BinaryIO, name: str) -> None:
    """Refuses a zip whose list of members would fill the memory, before the list is read."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 65_557))
    tail = file.read()
    end = tail.rfind(b"PK\5\6")
    if end >= 0 and len(tail) >= end + 22:
        directory = int.from_bytes(tail[end + 12 : end + 16], "little")
        if tail[max(0, end - 20) : end].startswith(b"PK\6\7"):
            # A 64-bit zip: the real size stands in a record of its own, right before the two that end the file.
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
    """What all members of a zip together may still expand to."""

    def __init__(self, name: str, num_bytes: int) -> None:
        self.name, self.num_bytes_left = name, num_bytes

    def spend(self, num_bytes: int) -> None:
        self.num_bytes_left -= num_bytes
        if self.num_bytes_left < 0:
            raise FormatError(
                f"{self.name} expands to far more than a zip of conversations would",
                "The import of this zip stops here",
            )


class _ZipMember(io.RawIOBase):
    """One member, unpacked while it is read."""

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
