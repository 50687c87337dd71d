"""The file: new, old, shared by processes, on a full disk, damaged, foreign. Each fault is a StoreError with a hint."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from treechat.errors import StoreError
from treechat.store import Store
from treechat.store.schema import MIGRATIONS
from treechat.tree import Span


def test_a_new_file_is_created_with_its_folders_and_opens_again(db_path):
    with Store.open(db_path) as store:
        assert store.path == db_path
        conversation = store.create_conversation("kept")
    with Store.open(db_path) as store:
        assert store.conversation(conversation.id) == conversation
        assert store.conn.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store.conn.execute("PRAGMA foreign_keys").fetchone() == (1,)


def test_the_migrations_are_recorded_by_name(store):
    names = [row[0] for row in store.conn.execute("SELECT name FROM _sqlite_migrations ORDER BY rowid")]
    assert names == list(MIGRATIONS)


def fails(path, words):
    with pytest.raises(StoreError) as caught:
        Store.open(path)
    assert words in caught.value.message
    assert caught.value.hint


def test_a_file_that_is_no_database_does_not_change(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("These are my notes, and not a database at all. " * 50)
    before = path.read_bytes()
    fails(path, "not a SQLite database")
    assert path.read_bytes() == before


def test_a_database_of_another_program_does_not_change(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TABLE mine (x)")
    conn.close()
    before = path.read_bytes()
    fails(path, "another program")
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused(db_path):
    with Store.open(db_path) as store:
        store.conn.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('treechat', '999_x', '')"
        )
    fails(db_path, "newer treechat")


def test_the_error_names_a_folder_or_file_in_the_path(tmp_path):
    fails(tmp_path, "is a folder")
    (tmp_path / "file").write_text("x")
    fails(tmp_path / "file" / "x.db", "cannot be created")


def test_a_damaged_file_raises_an_error(db_path):
    with Store.open(db_path) as store:
        conversation = store.create_conversation("t")
        store.add_nodes(conversation.id, [{"parent_id": None, "role": "user", "text": "x" * 500} for _ in range(200)])
    content = bytearray(db_path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    db_path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"), Store.open(db_path) as store:
        store.load_tree(conversation.id)


@pytest.fixture
def sealed_folder() -> Iterator[Path]:
    """A folder that this process can read but not write; root switches to another user during the test."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    user = os.geteuid()
    os.seteuid(user or 65534)
    yield folder
    os.seteuid(user)
    shutil.rmtree(folder)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_a_folder_that_cannot_be_written_is_refused(sealed_folder):
    fails(sealed_folder / "new.db", "cannot be opened")
    fails(sealed_folder / "below" / "new.db", "cannot be created")


def test_a_full_disk_raises_an_error_and_earlier_data_stays(db_path):
    with Store.open(db_path) as store:
        conversation = store.create_conversation("t")
        node = store.add_node(conversation.id, None, "user", "kept")
        (num_pages,) = store.conn.execute("PRAGMA page_count").fetchone()
        store.conn.execute(f"PRAGMA max_page_count = {num_pages + 2}")
        with pytest.raises(StoreError, match="disk is full") as caught:
            store.add_node(conversation.id, node.id, "assistant", "x" * 200_000, spans=[Span("t", (1,))])
        assert "safe" in caught.value.hint
        assert store.text(node.id) == "kept"
        store.conn.execute("PRAGMA max_page_count = 1000000")
        store.add_node(conversation.id, node.id, "assistant", "x" * 200_000)
    with Store.open(db_path) as store:
        assert len(store.load_tree(conversation.id)) == 2
        assert store.verify() == []


WRITER = """
import sys
from pathlib import Path
from treechat.store import Store
store = Store.open(Path(sys.argv[1]))
conversation = store.create_conversation(sys.argv[2])
for i in range(100):
    node = store.add_node(conversation.id, None, "user", str(i))
    store.set_label(node.id, f"n{i}")
store.close()
"""


def test_processes_that_open_a_new_file_and_write_at_once_lose_nothing(db_path):
    children = [subprocess.Popen([sys.executable, "-c", WRITER, str(db_path), str(i)]) for i in range(3)]
    assert [child.wait() for child in children] == [0, 0, 0]
    with Store.open(db_path) as store:
        assert sorted(info.title for info in store.conversations()) == ["0", "1", "2"]
        for info in store.conversations():
            labels = [node.label for node in store.load_tree(info.id).nodes.values()]
            assert labels == [f"n{i}" for i in range(100)]


def test_opening_the_store_loads_nothing_heavy(db_path):
    Store.open(db_path).close()
    code = (
        "import sys; from pathlib import Path; from treechat.store import Store; Store.open(Path(sys.argv[1]));"
        "print([m for m in ('torch', 'numpy', 'transformers', 'textual', 'sqlite_utils') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code, str(db_path)], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
