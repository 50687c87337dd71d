"""Reads in another thread that hold up nobody: on a connection of their own, and ended from outside."""

from __future__ import annotations

import sqlite3

from treechat.store.connection import BUSY_S
from treechat.store.sqlite_errors import store_error
from treechat.store.store import Store


class Reader:
    """A second connection to a store's file, which writes nothing; a store in memory is read through its own.

    `store` is for one thread at a time; `interrupt` may come from any.
    """

    def __init__(self, store: Store) -> None:
        """Raises StoreError where the file cannot be opened again."""
        self.store = store
        self._conn: sqlite3.Connection | None = None
        if store.path is None:
            return
        try:
            self._conn = sqlite3.connect(store.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._conn.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            raise store_error(error, store.path) from error
        self.store = Store(self._conn, store.path)

    def interrupt(self) -> None:
        """End the read that is going on, which raises StoreError; without one nothing happens."""
        if self._conn is not None:
            self._conn.interrupt()

    def close(self) -> None:
        """Close the connection; a read that is going on is ended, and waited for."""
        self.interrupt()
        if self._conn is not None:
            self.store.close()
