"""SQLite's errors as StoreError, with a hint."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from treechat.errors import StoreError


def store_error(error: sqlite3.Error, path: Path | None) -> StoreError:
    """The StoreError for an error of SQLite. path: the database; None for one in memory."""
    where = str(path) if path else "the database in memory"
    code = getattr(error, "sqlite_errorcode", None)
    # The low byte of an extended code is the primary code.
    primary = code & 0xFF if code is not None else None
    known = {
        sqlite3.SQLITE_NOTADB: (f"{where} is not a SQLite database", "Choose another file with --db"),
        sqlite3.SQLITE_CORRUPT: (
            f"{where} is damaged: {error}",
            "Restore a copy, or recover the readable part with `sqlite3 FILE .recover`",
        ),
        sqlite3.SQLITE_FULL: (
            f"The disk is full: {where} cannot be written",
            "Free some disk space; the data saved before is safe",
        ),
        sqlite3.SQLITE_BUSY: (
            f"{where} is locked by another program",
            "Close the other program, or try again",
        ),
        sqlite3.SQLITE_READONLY: (
            f"{where} cannot be written",
            "Make the file and its folder writable, or choose another file with --db",
        ),
        sqlite3.SQLITE_CANTOPEN: (
            f"{where} cannot be opened",
            "Check that its folder exists and can be written, or choose another file with --db",
        ),
        sqlite3.SQLITE_IOERR: (f"Reading or writing {where} failed: {error}", "Check the disk, then try again"),
        sqlite3.SQLITE_CONSTRAINT: (f"{where} refused the change: {error}", ""),
    }
    known[sqlite3.SQLITE_LOCKED] = known[sqlite3.SQLITE_BUSY]
    known[sqlite3.SQLITE_PERM] = known[sqlite3.SQLITE_READONLY]
    message, hint = known.get(primary, (f"{where}: {error}", "")) if primary is not None else (f"{where}: {error}", "")
    return StoreError(message, hint)


def newer_schema(path: Path | None, names: list[str]) -> StoreError:
    where = str(path) if path else "the database in memory"
    return StoreError(
        f"{where} was written by a newer treechat (it has {', '.join(names)})",
        "Update treechat, or choose another file with --db",
    )


def foreign_database(path: Path | None) -> StoreError:
    return StoreError(f"{path} is a SQLite database of another program", "Choose another file with --db")
