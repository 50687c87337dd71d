"""A large conversation comes in by portions: others write between them, and it is in sight only when it is whole."""

from __future__ import annotations

import json
import threading

import pytest

from tests.treechat.cli.test_importing import chatgpt
from treechat.chat import documents
from treechat.chat.importing import Import, ImportJob
from treechat.store import Store

IDS = [f"{'ua'[i % 2]}{i}" for i in range(35)]


@pytest.fixture
def export(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "PORTION", 10)
    file = tmp_path / "conversations.json"
    file.write_text(json.dumps([chatgpt(*IDS, conversation_id="big"), chatgpt("u1", conversation_id="small")]))
    return file


class StopError(Exception):
    """Raised where the test leaves off."""


def run(store: Store, file, at: int | None = None):
    """Import; `at`: leave off at that look at how far it is."""
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


def test_one_that_was_left_off_is_out_of_sight_and_the_next_import_goes_on(tmp_path, export) -> None:
    with Store.open(tmp_path / "x.db") as store, Store.open(tmp_path / "whole.db") as whole:
        run(whole, export)
        (expected,) = (info for info in whole.conversations() if info.title == "Chat big")
        left_off = 0
        for at in range(1, 12):
            try:
                report = run(store, export, at)
            except StopError:
                left_off += bool(store.find_unfinished("chatgpt", "big"))
                assert not any(info.title == "Chat big" and info.num_nodes < 35 for info in store.conversations())
                assert store.search("u20") == [] or store.find_unfinished("chatgpt", "big") is None
        assert left_off >= 2
        report = run(store, export)
        assert report.nodes == 0
        (found,) = (info for info in store.conversations() if info.title == "Chat big")
        assert (found.id, found.num_nodes, found.current_id) == (expected.id, 35, expected.current_id)
        nodes = [(node.id, node.parent_id, node.role) for node in whole.load_tree(found.id).nodes.values()]
        assert [(node.id, node.parent_id, node.role) for node in store.load_tree(found.id).nodes.values()] == nodes
        assert store.find_unfinished("chatgpt", "big") is None


def test_a_conversation_that_is_finished_counts_as_new(tmp_path, export) -> None:
    with Store.open(tmp_path / "x.db") as store:
        at = 1
        while store.find_unfinished("chatgpt", "big") is None:
            with pytest.raises(StopError):
                run(store, export, at)
            at += 1
        report = run(store, export)
        assert (report.conversations, report.imported[0]["new"]) == (2, True)


def test_a_job_ends_in_the_middle_of_a_conversation(tmp_path, export, monkeypatch) -> None:
    add_nodes = Store.add_nodes

    with Store.open(tmp_path / "x.db") as store:
        started = threading.Event()

        def stopping(self, *args):
            assert started.wait(30)
            job.stop()
            return add_nodes(self, *args)

        monkeypatch.setattr(Store, "add_nodes", stopping)
        job = ImportJob(store, [export], False)
        started.set()
        job.wait()
        assert job.is_stopped and job.error is None
        assert (job.report.conversations, store.conversations()) == (0, [])
