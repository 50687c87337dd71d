"""A large conversation is imported in portions: others write between them, and it is hidden until it is complete."""

from __future__ import annotations

import json
import threading

import pytest

from tests.treechat.cli.test_import_command import chatgpt
from treechat.formats.trees import prefix_rows
from treechat.store import Store
from treechat.transfer import import_writer
from treechat.transfer.import_job import Import, ImportJob

IDS = [f"{'ua'[i % 2]}{i}" for i in range(35)]


@pytest.fixture
def export(tmp_path, monkeypatch):
    monkeypatch.setattr(import_writer, "PORTION", 10)
    file = tmp_path / "conversations.json"
    file.write_text(json.dumps([chatgpt(*IDS, conversation_id="big"), chatgpt("u1", conversation_id="small")]))
    return file


class StopError(Exception):
    """Raised to interrupt an import."""


def run(store: Store, file, at: int | None = None):
    """Import. at: the number of the progress call that interrupts it."""
    looks = 0

    def progress() -> None:
        nonlocal looks
        looks += 1
        if looks == at:
            raise StopError

    one = Import(store, progress=progress)
    one.take(file)
    return one.report


def test_other_connections_write_between_the_portions(tmp_path, export) -> None:
    with Store.open(tmp_path / "x.db") as store, Store.open(tmp_path / "x.db") as other:
        mine = other.create_conversation("mine")
        writes = []

        def progress() -> None:
            other.rename(mine.id, f"mine {len(writes)}")
            writes.append([info.title for info in other.conversations()])

        one = Import(store, progress=progress)
        one.take(export)
        assert len(writes) > 5
        assert all("Chat big" not in titles for titles in writes[:4])
        assert (one.report.conversations, one.report.nodes) == (2, 36)
        assert sorted(info.title for info in store.conversations())[:2] == ["Chat big", "Chat small"]


def shape(store: Store) -> list[tuple]:
    """Return the rows of the store, visible or hidden, without values that differ between imports."""
    nodes = store.conn.execute("SELECT id, conversation_id, parent_id, role, text, hidden FROM nodes ORDER BY id")
    conversations = store.conn.execute("SELECT id, title, current_id, hidden FROM conversations ORDER BY id")
    return [*nodes, *conversations, *store.conn.execute("SELECT * FROM imports")]


def test_an_interrupted_import_leaves_nothing_and_the_next_one_is_complete(tmp_path, export) -> None:
    with Store.open(tmp_path / "x.db") as store, Store.open(tmp_path / "whole.db") as whole:
        run(whole, export)
        before: list[int] = []
        for at in range(1, 12):
            try:
                run(store, export, at)
            except StopError:
                before.append(len(shape(store)))
                assert all(info.num_nodes == 35 for info in store.conversations() if info.title == "Chat big")
        assert before[:4] == [0] * 4 and before[-1] > 35
        assert run(store, export).failed == []
        assert shape(store) == shape(whole)


def test_a_large_addition_becomes_visible_completely_or_not_at_all(tmp_path, export) -> None:
    first = tmp_path / "first.json"
    first.write_text(json.dumps(chatgpt(*IDS[:3], conversation_id="big")))
    with Store.open(tmp_path / "x.db") as store, Store.open(tmp_path / "whole.db") as whole:
        for one in (store, whole):
            run(one, first)
        run(whole, export)
        assert sum(row[5] == 0 for row in shape(whole) if len(row) == 6) == 36
        left, looks = shape(store), []
        for at in range(1, 7):
            try:
                run(store, export, at)
            except StopError:
                looks.append(shape(store) == left)
        assert looks[:4] == [True] * 4
        report = run(store, export)
        assert [one["new"] for one in report.imported] in ([True], [False, True], [])
        assert [row[:3] + row[5:] for row in shape(store)] == [row[:3] + row[5:] for row in shape(whole)]


def test_another_error_leaves_no_part_either(tmp_path, export) -> None:
    with Store.open(tmp_path / "x.db") as store:

        def progress() -> None:
            if store.unfinished("chatgpt", "big"):
                raise BrokenPipeError(32, "Broken pipe")

        one = Import(store, progress=progress)
        one.take(export)
        assert one.report.failed == ["conversations.json: Broken pipe"] and shape(store) == []


def lines(path, rows: list[list[str]]):
    roles = ("user", "assistant", "user")
    records = ({"messages": [{"role": r, "content": t} for r, t in zip(roles, row, strict=False)]} for row in rows)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_flat_rows_in_parts_become_visible_after_the_whole_file(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(prefix_rows, "PORTION_BYTES", 3_000)
    rows = [["Hi", f"A{i % 3}", f"B{i}"] for i in range(20)] + [[f"Alone {i}"] for i in range(5)]
    file = lines(tmp_path / "x.jsonl", rows)
    old = lines(tmp_path / "old.jsonl", rows[:1])
    with Store.open(tmp_path / "x.db") as store, Store.open(tmp_path / "whole.db") as whole:
        monkeypatch.setattr(prefix_rows, "PORTION_BYTES", 1_000_000)
        run(whole, file)
        monkeypatch.setattr(prefix_rows, "PORTION_BYTES", 3_000)
        for known in ([], [old]):
            for path in known:
                run(store, path)
            left = shape(store)
            for at in range(1, 18):
                with pytest.raises(StopError):
                    run(store, file, at)
                assert shape(store) == left
        report = run(store, file)
        assert (report.conversations, report.nodes, report.forks) == (5, 26, 4)
        assert [row for row in shape(store) if len(row) == 6] == [row for row in shape(whole) if len(row) == 6]


def test_a_conversation_that_another_import_writes_is_skipped_and_reported(tmp_path, export) -> None:
    with Store.open(tmp_path / "x.db") as store, Store.open(tmp_path / "x.db") as other:
        reports = []

        def progress() -> None:
            if not reports and store.unfinished("chatgpt", "big"):
                reports.append(run(other, export))

        one = Import(store, progress=progress)
        one.take(export)
        assert [why for why in reports[0].failed if why.startswith("Chat big: another import is writing")]
        assert (reports[0].nodes, one.report.nodes, one.report.failed) == (1, 35, [])
        assert {info.title: info.num_nodes for info in store.conversations()} == {"Chat big": 35, "Chat small": 1}


def test_a_job_can_be_stopped_in_the_middle_of_a_conversation(tmp_path, export, monkeypatch) -> None:
    add_nodes = Store.add_nodes

    with Store.open(tmp_path / "x.db") as store:
        started = threading.Event()

        def stopping(self, *args, **more):
            assert started.wait(30)
            job.stop()
            return add_nodes(self, *args, **more)

        monkeypatch.setattr(Store, "add_nodes", stopping)
        job = ImportJob(store, [export], False)
        started.set()
        job.wait()
        assert job.is_stopped and job.error is None
        assert (job.report.conversations, store.conversations()) == (0, [])
