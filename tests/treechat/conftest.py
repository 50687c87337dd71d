"""Random tests draw the same values in each run, and fresh stores in memory are copies of one.

What a new draw finds is looked for on purpose (`--hypothesis-profile=default`), not when something else is tested. A
busy machine fails none of them.
"""

from __future__ import annotations

import sqlite3
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from treechat.store import store
from treechat.store.connection import connect

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")


@cache
def _fresh_store() -> sqlite3.Connection:
    return connect(None)


def _connect(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        return connect(path)
    conn = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    _fresh_store().backup(conn)
    conn.execute("PRAGMA foreign_keys = ON")
    return conn


@pytest.fixture(scope="session", autouse=True)
def copied_stores():
    """Open a store in memory as a copy of a migrated one: all migrations take ten times as long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "connect", _connect)
        yield
