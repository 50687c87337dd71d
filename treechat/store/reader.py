"""Read in another thread: on a second connection, so that no other thread waits, and interruptible."""

from __future__ import annotations

import sqlite3

from treechat.store.connection import BUSY_S
from treechat.store.sqlite_errors import store_error
from treechat.store.store import Store


class Reader:
    """A second, read-only connection to a store's file. A store in memory is read through its own connection.

    Use `store` from one thread at a time; call `interrupt` from any thread.
    """

    def __init__(self, store: Store) -> None:
        """Raises StoreError if the file cannot be opened again."""
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
        """End the running read, which then raises StoreError. Without one, do nothing."""
        if self._conn is not None:
            self._conn.interrupt()

    def close(self) -> None:
        """Interrupt the running read, wait for its end, and close the connection."""
        self.interrupt()
        if self._conn is not None:
            self.store.close()
