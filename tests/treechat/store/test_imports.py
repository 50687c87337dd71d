"""The rows of an import are hidden until it finishes, and removed if it never does."""

import subprocess
import sys

import pytest

from treechat.store import NewNode, Store, imports

HALF = """
import os, sys
from pathlib import Path
from treechat.store import NewNode, Store
with Store.open(Path(sys.argv[1])) as store:
    conversation = store.create_conversation("half", id="half", source="x", source_id="half", is_unfinished=True)
    store.begin_import("half", "dead")
    store.add_nodes("half", [NewNode(f"h{i - 1}" if i else None, "user", "acorns", f"h{i}") for i in range(25)])
    store.begin_import("mine", "dead")
    store.add_nodes("mine", [NewNode("m0", "user", "acorns", f"g{i}") for i in range(3)], is_unfinished=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def left_off(tmp_path_factory):
    """A database left by a dead process that imported a new conversation and more nodes of an old one."""
    path = tmp_path_factory.mktemp("left-off") / "x.db"
    with Store.open(path) as store:
        store.create_conversation("mine", id="mine")
        store.add_node("mine", None, "user", "acorns", id="m0")
    subprocess.run([sys.executable, "-c", HALF, str(path)], check=True)
    return path.read_bytes(), path.with_name("x.db-wal").read_bytes()


@pytest.fixture
def path(left_off, tmp_path):
    database, log = left_off
    (tmp_path / "x.db").write_bytes(database)
    (tmp_path / "x.db-wal").write_bytes(log)
    return tmp_path / "x.db"


def rows(store: Store, table: str) -> int:
    return store.conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def begin(store: Store) -> None:
    """A new conversation and one with new nodes, in the import `mine`."""
    store.create_conversation("old", id="old")
    store.add_node("old", None, "user", "acorns", id="o0")
    store.create_conversation("new", id="new", source="x", source_id="new", is_unfinished=True)
    for conversation_id in ("old", "new"):
        store.begin_import(conversation_id, "mine")
    store.add_nodes("new", [NewNode(None, "user", "acorns", "n0"), NewNode("n0", "assistant", "acorns", "n1")])
    store.add_nodes("old", [NewNode("o0", "assistant", "acorns", "o1")], is_unfinished=True)


def seen(store: Store) -> dict[str, int]:
    return {info.title: info.num_nodes for info in store.conversations()}


def test_imported_rows_are_visible_after_the_import_finishes(store):
    begin(store)
    assert seen(store) == {"old": 1} and [hit.node_id for hit in store.search("acorns")] == ["o0"]
    assert list(store.load_tree("old").walk()) == ["o0"] and store.unfinished("x", "new") == "new"
    assert store.is_written_elsewhere("old", "other") and not store.is_written_elsewhere("old", "mine")
    store.finish_import("mine", "new")
    assert seen(store) == {"old": 1, "new": 2} and store.unfinished("x", "new") is None
    store.finish_import("mine")
    assert seen(store) == {"old": 2, "new": 2} and not store.is_written_elsewhere("old", "other")
    assert store.drop_import("mine") == 0 and store.verify() == []


def test_a_dropped_import_leaves_no_rows(store, monkeypatch):
    monkeypatch.setattr(imports, "PORTION", 2)
    begin(store)
    looks = []
    assert store.drop_import("mine", after_portion=lambda: looks.append(rows(store, "nodes"))) == 3
    assert looks == [2, 1] and seen(store) == {"old": 1}
    assert (rows(store, "conversations"), rows(store, "imports")) == (1, 0) and store.verify() == []


def test_a_running_import_stays_and_a_failed_one_is_removed(store):
    begin(store)
    assert store.drop_dead_imports() == 0 and rows(store, "nodes") == 4
    store.conn.execute("PRAGMA query_only = ON")
    with pytest.raises(Exception, match="cannot be written"):
        store.drop_import("mine")
    store.conn.execute("PRAGMA query_only = OFF")
    assert store.drop_dead_imports() == 3 and rows(store, "imports") == 0


def test_opening_removes_the_rows_of_a_dead_process(path):
    with Store.open(path) as store:
        assert (rows(store, "nodes"), rows(store, "conversations"), rows(store, "imports")) == (1, 1, 0)
        assert seen(store) == {"mine": 1} and store.verify() == []


def test_opening_removes_many_rows_in_several_steps(path, monkeypatch):
    monkeypatch.setattr(imports, "PORTION", 10)
    monkeypatch.setattr("treechat.store.store.SWEEP_S", 0)
    left = []
    for _ in range(4):
        with Store.open(path) as store:
            left.append(rows(store, "nodes"))
            assert seen(store) == {"mine": 1}
    assert left == [19, 9, 1, 1]


def test_a_reused_row_number_is_not_removed(path, monkeypatch):
    monkeypatch.setattr(imports, "PORTION", 10)
    monkeypatch.setattr("treechat.store.store.SWEEP_S", 0)
    monkeypatch.setattr(Store, "drop_dead_imports", lambda *_: 0)
    with Store.open(path) as store, Store.open(path) as other:

        def meanwhile() -> None:
            other.drop_import("dead")
            other.add_nodes("mine", [NewNode("m0", "user", "new", f"new{i}") for i in range(20)])

        store.drop_import("dead", after_portion=lambda: None if rows(store, "nodes") > 20 else meanwhile())
        assert seen(store) == {"mine": 21}


def test_an_import_of_another_host_is_dead_after_a_day(store):
    begin(store)
    store.conn.execute("UPDATE imports SET host = 'elsewhere'")
    assert store.drop_dead_imports() == 0
    store.conn.execute("UPDATE imports SET written_at = written_at - 90000")
    assert store.drop_dead_imports() == 3
