"""Random tests draw the same values in each run, and new stores in memory are copies of one.

New draws are an explicit choice (`--hypothesis-profile=default`), not a part of other test runs. There is no deadline,
so no random test fails on a busy machine.
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
    """Open a store in memory as a copy of a migrated store: running all migrations takes ten times as long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "connect", _connect)
        yield
