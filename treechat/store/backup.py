"""A copy of the whole file, hidden nodes and undo history included, while it is in use: SQLite's own online backup."""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path

from treechat.errors import StoreError
from treechat.store.connection import BUSY_S, Connection
from treechat.store.schema import APPLICATION_ID
from treechat.store.sqlite_errors import store_error


class Backup(Connection):
    """The part of the store that copies itself."""

    def back_up(self, target: Path) -> None:
        """Copy everything to `target`, a file of its own that `--db` opens. It is there
        whole and checked, or not at all.

        Other windows may go on writing; the copy is of one moment. An older backup is replaced, any other file is not.
        Raises StoreError.
        """
        self._require_replaceable(target)
        part = target.with_name(f".treechat-{secrets.token_hex(4)}.part")
        try:
            self._copy_to(part, target)
            part.replace(target)
        except OSError as error:
            raise StoreError(
                f"{target} cannot be written: {error.strerror}", "Name a file in a folder that can be written"
            ) from error
        finally:
            part.unlink(missing_ok=True)

    def _copy_to(self, part: Path, target: Path) -> None:
        try:
            with closing(sqlite3.connect(part, isolation_level=None)) as copy:
                # All pages in one step: a copy in several begins again whenever another window writes.
                if self.path is None:
                    with self._lock:
                        self._conn.backup(copy)
                else:
                    # A connection of its own, so that this window goes on, too.
                    with closing(sqlite3.connect(self.path, timeout=BUSY_S)) as source:
                        source.backup(copy)
                # One file without a log beside it, so that it can be copied about.
                copy.execute("PRAGMA journal_mode = DELETE")
                problems = [row[0] for row in copy.execute("PRAGMA integrity_check") if row[0] != "ok"]
        except sqlite3.Error as error:
            raise store_error(error, target) from error
        if problems:
            raise StoreError(
                f"{self.path} is damaged, so it was not copied: {problems[0]}",
                "Restore an older copy, or save what can be read with `sqlite3 FILE .recover`",
            )
        with part.open("rb+") as file:
            os.fsync(file.fileno())

    def _require_replaceable(self, target: Path) -> None:
        if target.is_dir():
            raise StoreError(f"{target} is a folder", "Name a file in it")
        if self.path is not None and _is_of(target, self.path):
            raise StoreError(f"{target} belongs to the database itself", "Name another file")
        if not target.exists():
            return
        if not target.is_file():
            raise StoreError(f"{target} is a device or a pipe, which cannot hold a database", "Name a file")
        log = target.with_name(f"{target.name}-wal")
        if log.exists() and log.stat().st_size:
            raise StoreError(f"{target} is open in another treechat", "Close it there, or name another file")
        if target.stat().st_size and not _is_ours(target):
            raise StoreError(f"{target} is there already and is no treechat database", "Name another file")


def _is_of(target: Path, path: Path) -> bool:
    """Whether `target` is the database file or one that SQLite keeps beside it."""
    own = path.resolve()
    return target.resolve() in (
        own,
        *(own.with_name(own.name + suffix) for suffix in ("-wal", "-shm", "-journal")),
    ) or (target.exists() and path.exists() and target.samefile(path))


def _is_ours(path: Path) -> bool:
    """Whether the file's header is one of our databases; nothing is opened, so nothing is changed."""
    with path.open("rb") as file:
        header = file.read(100)
    return header[:16] == b"SQLite format 3\0" and int.from_bytes(header[68:72], "big") == APPLICATION_ID
