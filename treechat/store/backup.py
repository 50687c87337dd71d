"""Back up the whole file while it is in use, hidden nodes and undo history included (SQLite's online backup)."""

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
    """Back up the database."""

    def back_up(self, target: Path) -> None:
        """Copy the database to `target`, a file that `--db` opens. On an error `target` does not change.

        The copy is checked. It holds the state of one moment; other windows may write meanwhile. An older backup is
        replaced, another file is refused. Raises StoreError.
        """
        self._require_replaceable(target)
        part = target.with_name(f".treechat-{secrets.token_hex(4)}.part")
        try:
            self._copy_to(part, target)
            part.replace(target)
        except OSError as error:
            raise StoreError(
                f"{target} cannot be written: {error.strerror}", "Choose a file in a writable folder"
            ) from error
        finally:
            part.unlink(missing_ok=True)

    def _copy_to(self, part: Path, target: Path) -> None:
        try:
            with closing(sqlite3.connect(part, isolation_level=None)) as copy:
                # All pages in one step: a copy in several steps restarts when another window writes.
                if self.path is None:
                    _copy_memory(self, copy, target)
                else:
                    # A second connection, so that this window does not wait.
                    with closing(sqlite3.connect(self.path, timeout=BUSY_S)) as source:
                        source.backup(copy)
                # One file without a log next to it, so that it can be copied.
                copy.execute("PRAGMA journal_mode = DELETE")
                problems = [row[0] for row in copy.execute("PRAGMA integrity_check") if row[0] != "ok"]
        except sqlite3.Error as error:
            raise store_error(error, target) from error
        if problems:
            raise StoreError(
                f"{self.path} is damaged and was not copied: {problems[0]}",
                "Restore an older copy, or recover the readable part with `sqlite3 FILE .recover`",
            )
        with part.open("rb+") as file:
            os.fsync(file.fileno())

    def _require_replaceable(self, target: Path) -> None:
        if target.is_dir():
            raise StoreError(f"{target} is a folder", "Choose a file in it")
        if self.path is not None and _belongs_to(target, self.path):
            raise StoreError(f"{target} belongs to the database itself", "Choose another file")
        if not target.exists():
            return
        if not target.is_file():
            raise StoreError(f"{target} is a device or a pipe and cannot hold a database", "Choose a file")
        log = target.with_name(f"{target.name}-wal")
        if log.exists() and log.stat().st_size:
            raise StoreError(f"{target} is open in another treechat", "Close it there, or choose another file")
        if target.stat().st_size and not _is_ours(target):
            raise StoreError(f"{target} exists and is not a treechat database", "Choose another file")


def _copy_memory(store: Connection, copy: sqlite3.Connection, target: Path) -> None:
    with store.reading() as conn:
        try:
            conn.backup(copy)
        except sqlite3.Error as error:
            raise store_error(error, target) from error


def _belongs_to(target: Path, path: Path) -> bool:
    """Whether `target` is the database file or one of the files that SQLite adds to it."""
    own = path.resolve()
    return target.resolve() in (
        own,
        *(own.with_name(own.name + suffix) for suffix in ("-wal", "-shm", "-journal")),
    ) or (target.exists() and path.exists() and target.samefile(path))


def _is_ours(path: Path) -> bool:
    """Whether the file's header is that of our databases. SQLite does not open the file, so nothing changes."""
    with path.open("rb") as file:
        header = file.read(100)
    return header[:16] == b"SQLite format 3\0" and int.from_bytes(header[68:72], "big") == APPLICATION_ID
