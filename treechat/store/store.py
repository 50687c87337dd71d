"""The store: all conversations in one SQLite file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from treechat.errors import StoreError
from treechat.store.backup import Backup
from treechat.store.checks import Checks
from treechat.store.connection import connect
from treechat.store.conversations import Conversations
from treechat.store.imports import Imports
from treechat.store.meta import Meta
from treechat.store.names import Names
from treechat.store.nodes import Nodes
from treechat.store.replies import Replies
from treechat.store.search import Search
from treechat.store.spans import Spans
from treechat.store.undo import Undo

SWEEP_S = 0.5
"""The most time that `open` spends on removing the rows of dead imports; the next `open` continues."""


class Store(Conversations, Nodes, Spans, Replies, Imports, Undo, Names, Search, Meta, Checks, Backup):
    """All conversations, in one file that several windows can open at once.

    Each base class is one subject: a mixin over `Connection` that uses no other mixin.

    Safe to use from several threads. Every method may raise StoreError; a writing method has then written nothing.
    """

    @classmethod
    def open(cls, path: Path | None) -> Store:
        """Open the file, or create it; None for an empty store in memory.

        Replies of dead processes are marked as interrupted, and their unfinished imports are removed.
        Raises StoreError, with a hint, for a file that is not ours, is damaged, is of a newer version, or cannot be
        opened.
        """
        store = cls(connect(path), path)
        # Skip this for a read-only file and for one that another process is writing for long.
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
