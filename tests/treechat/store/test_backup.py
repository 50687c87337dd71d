"""Backup: complete, consistent while other processes write, and never over another file."""

import os
import sqlite3
import subprocess
import sys

import pytest

from treechat.errors import StoreError
from treechat.store import Store
from treechat.tree import Span

WRITER = """
import sys
from pathlib import Path
from treechat.store import Store
store = Store.open(Path(sys.argv[1]))
conversation = store.create_conversation("busy")
print("begun", flush=True)
for i in range(100_000):
    store.add_nodes(conversation.id, [{"parent_id": None, "role": "user", "text": "a"},
                                      {"parent_id": None, "role": "user", "text": "b"}])
"""


def dump(path):
    conn = sqlite3.connect(path)
    lines = list(conn.iterdump())
    conn.close()
    return lines


@pytest.fixture
def filled(db_path):
    with Store.open(db_path) as store:
        conversation = store.create_conversation("t")
        node = store.add_node(conversation.id, None, "user", "x" * 10_000, spans=[Span("tok", (1, 2))], label="here")
        gone = store.add_node(conversation.id, node.id, "assistant", "hidden")
        store.hide(gone.id)
    return db_path


def test_the_copy_has_every_row_and_opens(filled, tmp_path):
    copy = tmp_path / "copy.db"
    with Store.open(filled) as store:
        store.back_up(copy)
        assert dump(copy) == dump(filled)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("copy")] == ["copy.db"]
    with Store.open(copy) as store:
        assert store.verify() == []
        assert store.undo() is not None


def test_a_copy_has_the_state_of_one_moment_while_another_process_writes(filled, tmp_path):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(filled)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout.readline() == b"begun\n"
        sizes = []
        with Store.open(filled) as store:
            for _ in range(5):
                store.back_up(tmp_path / "copy.db")
                with Store.open(tmp_path / "copy.db") as copy:
                    assert copy.verify() == []
                    texts = [row[0] for row in copy.rows("SELECT text FROM nodes WHERE length(text) = 1")]
                assert texts.count("a") == texts.count("b")
                sizes.append(len(texts))
        assert writer.poll() is None
        assert sizes == sorted(sizes)
    finally:
        writer.kill()
        writer.communicate()


def test_an_older_backup_is_replaced(filled, tmp_path):
    with Store.open(filled) as store:
        store.back_up(tmp_path / "copy.db")
        store.create_conversation("later")
        store.back_up(tmp_path / "copy.db")
    with Store.open(tmp_path / "copy.db") as copy:
        assert {info.title for info in copy.conversations()} == {"t", "later"}


def test_other_files_are_not_replaced(filled, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as conn:
        conn.execute("CREATE TABLE mine (x)")
    conn.close()
    before = {path: path.read_bytes() for path in (notes, foreign)}
    link = tmp_path / "link.db"
    link.symlink_to(filled)
    hard = tmp_path / "hard.db"
    hard.hardlink_to(filled)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with Store.open(filled) as store:
        log = filled.with_name(filled.name + "-wal")
        for target in (notes, foreign, filled, link, hard, pipe, log, tmp_path, tmp_path / "no" / "x.db"):
            with pytest.raises(StoreError) as caught:
                store.back_up(target)
            assert caught.value.hint
        assert store.verify() == []
    assert before == {path: path.read_bytes() for path in before} and pipe.is_fifo()
    assert not list(tmp_path.rglob("*.part"))


def test_a_backup_open_in_another_process_is_not_replaced(filled, tmp_path):
    with Store.open(filled) as store:
        store.back_up(tmp_path / "copy.db")
        with Store.open(tmp_path / "copy.db") as copy:
            copy.create_conversation("being used")
            with pytest.raises(StoreError, match="open in another"):
                store.back_up(tmp_path / "copy.db")


def test_a_damaged_file_is_not_backed_up(filled, tmp_path):
    with Store.open(filled) as store:
        store.back_up(tmp_path / "good.db")
        (root,) = store.row("SELECT rootpage FROM sqlite_master WHERE name = 'nodes_label'")
        (page_len,) = store.row("PRAGMA page_size")
        store.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(filled.read_bytes())
    content[(root - 1) * page_len : root * page_len] = b"\x0a" + bytes(page_len - 1)
    filled.write_bytes(content)
    good = (tmp_path / "good.db").read_bytes()
    with Store.open(filled) as store, pytest.raises(StoreError, match="damaged"):
        store.back_up(tmp_path / "good.db")
    assert (tmp_path / "good.db").read_bytes() == good
