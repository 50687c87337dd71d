"""One connection to one SQLite file, shared by all threads of this process under one lock."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from treechat.errors import StoreError
from treechat.store.schema import APPLICATION_ID, MIGRATIONS, applied_migrations, migrate
from treechat.store.sqlite_errors import foreign_database, newer_schema, store_error

BUSY_S = 10.0
"""How long a write waits for another process's."""

Row = tuple[Any, ...]


def connect(path: Path | None) -> sqlite3.Connection:
    """Open (or create, parent folders included) and bring to the newest schema. Raises StoreError."""
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"The folder {path.parent} cannot be made: {error.strerror}", "Name another file with --db"
            ) from error
        if path.is_dir():
            raise StoreError(f"{path} is a folder", "Name a file with --db")
    conn = None
    try:
        conn = sqlite3.connect(path or ":memory:", timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        _prepare(conn, path)
    except sqlite3.Error as error:
        if conn is not None:
            conn.close()
        raise store_error(error, path) from error
    except StoreError:
        if conn is not None:
            conn.close()
        raise
    return conn


def _prepare(conn: sqlite3.Connection, path: Path | None) -> None:
    # Nothing is written before the file is known to be ours or empty.
    (application_id,) = conn.execute("PRAGMA application_id").fetchone()
    (num_tables,) = conn.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if num_tables and application_id != APPLICATION_ID:
        raise foreign_database(path)
    conn.execute("PRAGMA foreign_keys = ON")
    if path is not None:
        _use_wal(conn)
    applied = applied_migrations(conn)
    if unknown := [name for name in applied if name not in MIGRATIONS]:
        raise newer_schema(path, unknown)
    if len(applied) < len(MIGRATIONS):
        migrate(conn)


def _use_wal(conn: sqlite3.Connection) -> None:
    # SQLite does not wait (busy_timeout) when two processes switch at once, so the waiting is done here.
    deadline = time.monotonic() + BUSY_S
    while conn.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            conn.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    # In WAL mode NORMAL survives a killed process whole, and a power cut without damage.
    conn.execute("PRAGMA synchronous = NORMAL")


class Connection:
    """The shared part of the store's mixins: a lock, reads, and writes in transactions.

    `repairs` lists what loading a tree had to mend, in words, newest last.
    """

    def __init__(self, conn: sqlite3.Connection, path: Path | None) -> None:
        self.path = path
        self.repairs: list[str] = []
        self._conn = conn
        self._lock = threading.RLock()

    def close(self) -> None:
        """Close the file. Closing twice is harmless; any other use afterwards raises StoreError."""
        with self._lock:
            self._conn.close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._conn
            except sqlite3.Error as error:
                raise store_error(error, self.path) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Several writes as one: all or none are kept, and nobody sees some of them."""
        with self._writing():
            yield

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction, or part of the one that is open. All or nothing is written."""
        with self._reading() as conn:
            if conn.in_transaction:
                yield conn
                return
            # IMMEDIATE: a transaction that reads first and writes later would fail, not wait, behind another writer.
            conn.execute("BEGIN IMMEDIATE")
            try:
                yield conn
                conn.execute("COMMIT")
            except BaseException:
                if conn.in_transaction:
                    conn.execute("ROLLBACK")
                raise

    def _all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        with self._reading() as conn:
            return conn.execute(sql, parameters).fetchall()

    def _one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        with self._reading() as conn:
            row: Row | None = conn.execute(sql, parameters).fetchone()
            return row

    def data_version(self) -> int:
        """A number that changes when another connection, such as a second window's, has written."""
        row = self._one("PRAGMA data_version")
        assert row is not None, "PRAGMA data_version gave no row"
        return int(row[0])
