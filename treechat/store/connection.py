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
"""How long a write waits for the write of another process."""

SqlRow = tuple[Any, ...]


def connect(path: Path | None) -> sqlite3.Connection:
    """Open or create the file, parent folders included, and apply pending migrations. Raises StoreError."""
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"The folder {path.parent} cannot be created: {error.strerror}", "Choose another file with --db"
            ) from error
        if path.is_dir():
            raise StoreError(f"{path} is a folder", "Choose a file with --db")
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
    # Write nothing before the file is known to be ours or empty.
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
    # SQLite's busy timeout does not apply when two processes switch to WAL at once, so this loop waits.
    deadline = time.monotonic() + BUSY_S
    while conn.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            conn.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    # In WAL mode, NORMAL loses nothing when the process is killed and damages nothing in a power cut.
    conn.execute("PRAGMA synchronous = NORMAL")


class Connection:
    """The common base of the parts of `Store`: a locked connection, reads, and writes in transactions.

    path: the file; None for a store in memory.
    repairs: the faults that loading a tree repaired, in words, newest last.
    conn: SQLite's connection. Use it only inside `reading` or `transaction`, which hold the lock.
    """

    def __init__(self, conn: sqlite3.Connection, path: Path | None) -> None:
        self.path = path
        self.repairs: list[str] = []
        self.conn = conn
        self._lock = threading.RLock()

    def close(self) -> None:
        """Close the file. A second call does nothing; any other use after it raises StoreError."""
        with self._lock:
            self.conn.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Hold the lock and yield SQLite's connection. SQLite's errors leave the block as StoreError."""
        with self._lock:
            try:
                yield self.conn
            except sqlite3.Error as error:
                raise store_error(error, self.path) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write the whole block or nothing of it. Inside an open transaction the block joins that one."""
        with self.reading() as conn:
            if conn.in_transaction:
                yield conn
                return
            # IMMEDIATE: a transaction that first reads and later writes fails, instead of waiting, if another
            # process writes in between.
            conn.execute("BEGIN IMMEDIATE")
            try:
                yield conn
                conn.execute("COMMIT")
            except BaseException:
                if conn.in_transaction:
                    conn.execute("ROLLBACK")
                raise

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[SqlRow]:
        """All rows of a query."""
        with self.reading() as conn:
            return conn.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> SqlRow | None:
        """The first row of a query; None if there is none."""
        with self.reading() as conn:
            row: SqlRow | None = conn.execute(sql, parameters).fetchone()
            return row

    def data_version(self) -> int:
        """A number that changes when another connection, such as that of a second window, has written."""
        row = self.row("PRAGMA data_version")
        assert row is not None, "PRAGMA data_version gave no row"
        return int(row[0])
