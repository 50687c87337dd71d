"""Copy messages and export conversations: exports are complete, new files that other programs can read."""

import json

import pytest

from treechat.errors import StoreError
from treechat.store import Store
from treechat.transfer.export import SUFFIXES
from treechat.tui.actions.output import BACKUP, FORMAT_NAMES, export_choices, lacks_clipboard
from treechat.tui.screens.pick import PickScreen


@pytest.mark.parametrize("env", [{"TERM": "linux"}, {"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}])
def test_terminals_without_clipboard_are_recognised(env) -> None:
    assert lacks_clipboard(env)
    assert not lacks_clipboard({"TERM": "xterm-256color"})


async def test_without_clipboard_a_copy_is_written_to_a_file(open_app, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "linux")
    monkeypatch.setenv("TREECHAT_CACHE_DIR", str(tmp_path))
    async with open_app(size=(120, 30)) as d:
        await d.send("hello")
        await d.press("tab", "y")
        assert (tmp_path / "copied.md").read_text() == "Hello *there*."
        await d.until(lambda: "does not support copying" in d.screen_text(), "where it went")


async def export(d, tmp_path, query: str = "") -> list[str]:
    """Export the list entry that `query` finds; return the names of all files afterwards."""
    before = {path.name for path in tmp_path.iterdir()}
    await d.press("x")
    await d.until(lambda: isinstance(d.app.screen, PickScreen), "the list")
    await d.press(*(" " if character == " " else character for character in query), "enter")
    await d.until(lambda: {path.name for path in tmp_path.iterdir()} > before, "a file")
    await d.until(lambda: not any(w.group == "exports" and not w.is_finished for w in d.app.workers), "its end")
    return sorted(path.name for path in tmp_path.iterdir())


def test_each_format_is_offered():
    assert {choice.id.split(":")[1] for choice in export_choices()} == set(FORMAT_NAMES) == {*SUFFIXES, BACKUP}
    assert len({choice.text for choice in export_choices()}) == len(export_choices())


async def test_enter_writes_the_branch_as_markdown_and_overwrites_no_file(open_app, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with open_app() as d:
        await d.send("hello there")
        await d.press("tab")
        await export(d, tmp_path)
        assert await export(d, tmp_path) == ["hello-there-1.md", "hello-there.md"]
        assert "Hello *there*." in (tmp_path / "hello-there.md").read_text()
        assert "Written to" in d.screen_text()


async def test_typing_selects_the_html_page_of_the_conversation(open_app, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with open_app() as d:
        await d.send("one")
        await d.press("tab", "r")
        await d.until(lambda: len(d.app.chat.tree) == 3 and d.is_idle, "a second reply")
        assert await export(d, tmp_path, "html conversation") == ["one.html"]
        assert (tmp_path / "one.html").read_text().count("<article ") == 3


async def test_from_this_message_on_begins_at_the_cursor(open_app, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with open_app() as d:
        await d.send("one")
        await d.send("two")
        second = d.app.chat.path()[2].id
        d.app.look_at(second, view_id=d.app.view_id)
        await d.press("tab")
        await export(d, tmp_path, "from json")
        _, *nodes = [json.loads(line) for line in (tmp_path / "one.jsonl").read_text().splitlines()]
        assert [node["text"] for node in nodes] == ["two", "Hello *there*."]
        assert nodes[0]["id"] == second and nodes[0]["parent"] is None


async def test_all_conversations_are_exported_with_tokens(open_app, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.chdir(folder)
    async with open_app(tmp_path / "x.db") as d:
        await d.send("one")
        await d.press("ctrl+n")
        await d.send("other")
        await d.press("tab")
        assert await export(d, folder, "all treechat") == ["conversations.jsonl"]
    records = [json.loads(line) for line in (folder / "conversations.jsonl").read_text().splitlines()]
    assert [record["title"] for record in records if "format" in record] == ["one", "other"]
    assert all("spans" in record for record in records if "role" in record)


async def test_every_choice_writes_a_file_whose_name_stays_in_the_folder(open_app, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.chdir(folder)
    async with open_app(tmp_path / "x.db") as d:
        await d.send("one")
        d.app.chat.nodes.rename("../../etc/\x1b[31m \u6f22\u5b57 .. " + "\U0001f600" * 50)
        await d.press("tab")
        for number, choice in enumerate(export_choices(), 1):
            await d.press("x")
            await d.until(lambda: isinstance(d.app.screen, PickScreen), "the list")
            d.app.screen.dismiss(choice.id)
            await d.until(lambda number=number: len(list(folder.iterdir())) == number, choice.text)
            await d.until(lambda: not any(w.group == "exports" and not w.is_finished for w in d.app.workers), "its end")
    files = sorted(folder.iterdir())
    assert len(files) == len(export_choices()) and all(file.stat().st_size for file in files)
    assert {file.name.rstrip("0123456789").split(".")[0].rstrip("-0123456789") for file in files} == {
        "conversations", "etc-31m-\u6f22\u5b57",
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["out"]


async def test_a_folder_that_cannot_be_written_is_reported(open_app, tmp_path, monkeypatch):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    async with open_app() as d:
        await d.send("one")
        await d.press("tab", "x")
        await d.until(lambda: isinstance(d.app.screen, PickScreen), "the list")
        await d.press("enter")
        await d.until(lambda: "cannot be written" in d.screen_text(), "the sentence")


async def test_a_copy_of_the_database_has_hidden_messages(open_app, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.chdir(folder)
    async with open_app(tmp_path / "x.db") as d:
        reply = await d.send("one")
        d.app.chat.nodes.hide(reply.id)
        await d.press("tab")
        assert await export(d, folder, "copy") == ["conversations.db"]
    with Store.open(folder / "conversations.db") as store:
        assert store.text(reply.id) == "Hello *there*."
        assert store.undo() is not None


async def test_a_failed_export_is_reported_and_leaves_no_file(open_app, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with open_app() as d:
        await d.send("one")

        def damaged(*_):
            raise StoreError("The disk failed", "Check the disk.")

        monkeypatch.setattr(Store, "texts", damaged)
        await d.press("tab", "x")
        await d.until(lambda: isinstance(d.app.screen, PickScreen), "the list")
        await d.press("enter")
        await d.until(lambda: "Check the disk." in d.screen_text(), "the hint")
        monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


async def test_a_conversation_without_messages_has_nothing_to_export(open_app):
    async with open_app() as d:
        await d.press("tab", "x")
        await d.until(lambda: "nothing to export" in d.screen_text(), "the answer")
