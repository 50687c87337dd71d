"""A database of each past version opens, keeps all rows and gets the current schema.

Each version has a file, from `v001.sql` on, with the database that it wrote. These files never change.
"""

import sqlite3
from pathlib import Path

import pytest

from treechat.store import Store
from treechat.store.schema import MIGRATIONS
from treechat.tree import Span

PAST = sorted(Path(__file__).parent.glob("v*.sql"))


@pytest.fixture(params=PAST, ids=lambda path: path.stem)
def past_db(request, db_path):
    db_path.parent.mkdir()
    conn = sqlite3.connect(db_path)
    conn.executescript(request.param.read_text())
    conn.close()
    return db_path


def shape(store):
    query = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type, name"
    return [(kind, name, " ".join(sql.split())) for kind, name, sql in store.conn.execute(query)]


def test_each_migration_has_a_database_of_its_version():
    assert [path.stem for path in PAST] == [f"v{name[:3]}" for name in MIGRATIONS]


def test_an_old_database_gets_the_current_schema(past_db, store):
    with Store.open(past_db) as past:
        assert shape(past) == shape(store)


def test_an_old_database_keeps_all_rows(past_db):
    with Store.open(past_db) as past:
        assert past.verify() == []
        (info,) = past.conversations()
        assert (info.title, info.num_nodes, info.num_forks) == ("From version 1", 4, 0)
        assert past.conversation(info.id).meta == {"template": "chatml"}
        assert past.find_source("chatgpt", "abc").id == info.id
        reply = past.resolve("node0003").node
        assert past.text(reply.id) == "The oak."
        assert past.span(reply.id, "tok") == Span("tok", (8, 9), (-0.5, -0.25))
        assert (past.turn(reply.id).seed, past.turn(reply.id).sampling) == (7, {"temperature": 0.5})
        half = past.resolve("node0005").node
        assert (half.status, past.text(half.id)) == ("interrupted", "Half a reply")
        assert past.span(half.id, "tok") == Span("tok", (10, 11, 12), (-1.0, -1.0, -2.0))
        assert [hit.node_id for hit in past.search("acorns")] == ["node0002node0002"]
        assert past.undo().kind == "hide"
        assert past.resolve("second").node.id == "node0004node0004"


def test_the_upgrade_removes_an_unfinished_import_without_owner(db_path):
    db_path.parent.mkdir()
    conn = sqlite3.connect(db_path)
    conn.executescript(PAST[0].read_text())
    conn.execute("INSERT INTO conversations SELECT 2, 'half', title, 0, 0, NULL, 2, 'x', 'y', '{}' FROM conversations")
    conn.execute(
        "INSERT INTO nodes SELECT 6, 'n', 'half', NULL, role, status, 0, NULL, 0, 0, '', '{}', 'x' FROM nodes LIMIT 1"
    )
    conn.commit()
    conn.close()
    with Store.open(db_path) as past:
        assert past.unfinished("x", "y") is None and past.conversations_of(["n"]) == {}
        assert len(past.conversations()) == 1
