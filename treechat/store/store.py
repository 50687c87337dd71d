"""The store: one SQLite file that holds every conversation, and the one door to it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from treechat.errors import StoreError
from treechat.store.backup import Backup
from treechat.store.checks import Checks
from treechat.store.connection import connect
from treechat.store.imports import Imports
from treechat.store.meta import Meta
from treechat.store.names import Names
from treechat.store.replies import Replies
from treechat.store.search import Search
from treechat.store.undo import Events

SWEEP_S = 0.5
"""What opening spends on removing what a dead import left; the rest is left to the next one."""


class Store(Replies, Imports, Events, Names, Search, Meta, Checks, Backup):
    """All conversations, in one file that several windows may have open at once.

    Safe to use from several threads. Every method may raise StoreError; a method that writes has then written nothing.
    """

    @classmethod
    def open(cls, path: Path | None) -> Store:
        """Open the file, made if it is not there, or a fresh store in memory for None.

        Replies that a dead process left behind are marked as interrupted, conversations that it did not import to
        their end are removed. Raises StoreError, with what to do, for a
        file that is not ours, is damaged, was written by a newer version, or cannot be opened.
        """
        store = cls(connect(path), path)
        # A file that can only be read, or that another process is writing to for long, opens without this.
        with suppress(StoreError):
            store.mark_interrupted()
        with suppress(StoreError):
            store.drop_dead_imports(SWEEP_S)
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
