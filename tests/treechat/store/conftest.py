"""Stores for the tests: in memory and on disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from treechat.store import Store
from treechat.tree import Conversation


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(None) as opened:
        yield opened


@pytest.fixture
def conversation(store: Store) -> Conversation:
    return store.create_conversation("A talk")


@pytest.fixture
def db_path(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "chats.db"
