"""Import in the app: typed and dropped paths, the dry run, stopping, opening an imported conversation."""

from __future__ import annotations

import json
import threading

import pytest

from tests.treechat.cli.test_import_command import chatgpt
from treechat.store import Store
from treechat.transfer.import_job import ImportJob
from treechat.transfer.import_writer import Intake
from treechat.tui.screens.importing import ImportScreen
from treechat.tui.screens.path_input import completions, first_missing, parse_paths, short_path


@pytest.fixture
def export(tmp_path):
    """A file of three conversations, in a folder whose name a shell must quote."""
    folder = tmp_path / "my chats"
    folder.mkdir()
    file = folder / "it's all.json"
    file.write_text(json.dumps([chatgpt("u1", "a1", conversation_id=f"c{i}") for i in range(3)]))
    return file


async def shown(d, text: str) -> None:
    await d.until(lambda: text in d.screen_text(), text)


def test_dropped_paths_are_read_however_the_terminal_writes_them(export, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(export.parent))
    quoted = str(export).replace("'", "'\\''")
    escaped = str(export).replace(" ", "\\ ").replace("'", "\\'")
    for text in (str(export), f"'{quoted}'", f' "{export}"\n', escaped, export.as_uri(), "~/it's all.json"):
        assert parse_paths(text) == [export], text
    assert parse_paths(f"'{quoted}' {escaped} ") == [export, export]
    assert first_missing(parse_paths("no such file.json")) is not None
    assert first_missing(parse_paths("'half quoted")) is not None
    assert parse_paths("") == []
    assert first_missing(parse_paths("a\0b")) is not None


def test_a_path_is_completed_to_what_can_be_read(export, tmp_path, monkeypatch) -> None:
    (tmp_path / "my photo.png").touch()
    (tmp_path / ".hidden.json").touch()
    assert completions(f"{tmp_path}/MY") == [export.parent]
    assert short_path(export.parent) == f"{export.parent}/"
    assert completions(f"{export.parent}/") == [export]
    assert completions(str(export).replace(" ", "\\ ")[:-12]) == [export]
    assert completions(f"{tmp_path}/.h") == [tmp_path / ".hidden.json"]
    assert completions("/no/such/folder/x") == []
    monkeypatch.chdir(export.parent)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [path.name for path in completions("")] == [export.name]


async def test_a_file_is_checked_then_imported_and_opened(open_app, export, tmp_path) -> None:
    path = tmp_path / "x.db"
    async with open_app(path, size=(100, 30)) as d:
        await d.press("f5")
        await d.until(lambda: isinstance(d.app.screen, ImportScreen), "the window")
        # A terminal pastes a dropped file's path.
        d.app.screen.query_one("Input").value = f"'{export.parent}/it'\\''s all.json' "
        await d.press("enter")
        await shown(d, "Would add 3 new conversations; 6 messages, 0 forks.")
        await shown(d, "ChatGPT · 0.0 MB, 3 conversations")
        assert d.app.store.conversations() == []
        await d.press("enter")
        await shown(d, "Added 3 new conversations; 6 messages, 0 forks.")
        await d.press("down", "enter")
        await d.until(lambda: d.app.chat.title == "Chat c1", "the second of them")
        await shown(d, "a1")
        # A second import finds nothing new, and enter does nothing.
        await d.press("f5")
        d.app.screen.query_one("Input").value = str(export.parent)
        await d.press("enter")
        await shown(d, "Everything in it is here already.")
        await d.press("enter", "escape")
        await d.until(lambda: d.app.screen is d.app.main_screen, "closed")
        assert len(d.app.store.conversations()) == 3


async def test_an_unreadable_file_is_reported_and_another_path_can_be_used(open_app, export, tmp_path) -> None:
    (tmp_path / "broken.json").write_text("{")
    async with open_app(tmp_path / "x.db", size=(80, 24)) as d:
        await d.press("f5")
        await d.until(lambda: isinstance(d.app.screen, ImportScreen), "the window")
        field = d.app.screen.query_one("Input")
        field.value = "/no/such/file.zip"
        await d.press("enter")
        await shown(d, "There is no /no/such/file.zip")
        field.value = f"{tmp_path}/bro"
        await d.until(lambda: d.app.screen.options.option_count == 1, "the completion")
        await d.press("enter")
        assert field.value == short_path(tmp_path / "broken.json"), "what is marked is taken first"
        await d.press("enter")
        await shown(d, "Nothing in it can be imported.")
        await shown(d, "cannot be read: broken.json")
        field.value = str(export)
        await d.press("enter")
        await shown(d, "Would add 3 new conversations")


async def test_a_file_whose_name_steers_a_terminal_is_offered_and_imported(open_app, export) -> None:
    hostile = export.rename(export.parent / "\x1b]0;owned\x07 [bold].json")
    async with open_app(size=(100, 30)) as d:
        await d.press("f5")
        await d.until(lambda: isinstance(d.app.screen, ImportScreen), "the window")
        d.app.screen.query_one("Input").value = f"{hostile.parent}/"
        await shown(d, "␛]0;owned␇ [bold].json")
        await d.press("tab")
        await shown(d, "Would add 3 new conversations")
        assert "\x1b" not in d.screen_text()


async def test_the_app_is_usable_during_an_import_and_stopping_it_keeps_whole_conversations(
    open_app, export, tmp_path, monkeypatch
) -> None:
    held, came = threading.Event(), threading.Event()
    take = Intake.take

    def waiting(self, document, source):
        if document.conversation.title == "Chat c1" and self.planned is None:
            came.set()
            assert held.wait(30)
        return take(self, document, source)

    monkeypatch.setattr(Intake, "take", waiting)
    async with open_app(tmp_path / "x.db", size=(120, 30)) as d:
        app = d.app
        await d.press("f5")
        await d.until(lambda: isinstance(app.screen, ImportScreen), "the window")
        app.screen.query_one("Input").value = str(export)
        await d.press("enter")
        await shown(d, "Would add")
        await d.press("enter")
        await d.until(came.is_set, "the second conversation")
        await shown(d, "Importing: 0.0 of 0.0 MB, 1 conversation")
        await d.press("escape")
        await shown(d, "importing 0.0 of 0.0 MB, 1 conversation")
        reply = await d.send("Meanwhile")
        assert app.chat.text(reply.id) == "Hello *there*."
        await d.press("f5")
        await d.until(lambda: isinstance(app.screen, ImportScreen), "the window again")
        await d.until(lambda: not app.screen.query_one("Input").has_focus, "the path hidden")
        stopped, stop = threading.Event(), app.imports.job.stop
        monkeypatch.setattr(app.imports.job, "stop", lambda: (stop(), stopped.set()))
        await d.press("s")
        await d.until(stopped.is_set, "the stop")
        held.set()
        await shown(d, "Stopped. Added 2 new conversations; 4 messages, 0 forks, each conversation whole.")
        titles = {info.title: info.num_nodes for info in app.store.conversations()}
        assert titles == {"Chat c0": 2, "Chat c1": 2, "Meanwhile": 2}
        await d.press("escape", "f5")
        await d.until(lambda: app.screen.query_one("Input").display, "a new path")


async def test_the_result_is_notified_if_the_screen_was_closed_and_quitting_ends_an_import(
    open_app, export, tmp_path
) -> None:
    path = tmp_path / "x.db"
    async with open_app(path, size=(120, 30)) as d:
        d.app.imports.start([export], False)
        await shown(d, "f5 shows the report")
        await d.press("f5")
        await shown(d, "Added 3 new conversations")
        await d.press("enter")
        await d.until(lambda: d.app.chat.title == "Chat c0", "the first of them")
    with Store.open(path) as store:
        job = ImportJob(store, [export], False)
        job.stop()
        job.wait()
        assert job.error is None
