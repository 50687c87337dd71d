"""The app as a whole: first frame, model loaded later, changes by other windows, help, errors."""

from __future__ import annotations

import threading

from tests.fakes import scripted_model
from treechat.config import Config
from treechat.errors import Offline, StoreError
from treechat.models import Progress
from treechat.tui.bindings import KEYS
from treechat.tui.screens.help import help_rows


async def test_the_composer_is_usable_before_the_model_is_loaded(open_app) -> None:
    ready = threading.Event()
    model = scripted_model("At last.")

    def load(progress):
        progress(Progress("load", 1, 4, "loading weights"))
        ready.wait(20)
        return model

    async with open_app(load_model=load, model_spec="held back") as d:
        await d.until(lambda: "loading weights 25%" in d.screen_text(), "progress in the status line")
        d.app.composer.put("Too early")
        await d.press("enter")
        assert d.app.composer.text == "Too early"
        assert len(d.app.chat.tree) == 0
        ready.set()
        await d.until(lambda: len(d.app.chat.tree) == 2 and d.is_idle, "the message that waited is sent")
        assert d.app.composer.text == ""


async def test_a_failed_model_load_keeps_the_text_and_shows_a_hint(open_app) -> None:
    def load(progress):
        raise Offline("The hub cannot be reached", "Connect once.")

    async with open_app(load_model=load, model_spec="held back") as d:
        await d.until(lambda: "Connect once." in d.screen_text(), "the hint")
        d.app.composer.put("kept")
        await d.press("enter")
        assert d.app.composer.text == "kept"


async def test_two_windows_on_one_file_see_each_other(open_app, tmp_path) -> None:
    path = tmp_path / "shared.db"
    async with open_app(path) as one:
        await one.send("from one")
        async with open_app(path) as two:
            assert "from one" in two.screen_text()
            await two.send("from two")
            here = one.app.chat.current_id
            await one.until(lambda: len(one.app.chat.tree) == 4, "the other window's messages")
            assert one.app.chat.current_id == here


async def test_help_lists_each_binding_with_the_configured_keys(open_app) -> None:
    async with open_app(size=(120, 100), config=Config(keymap={"do.regenerate": "f5"})) as d:
        await d.press("f1")
        rows = {row.key_id: row for row in help_rows(d.app.config.keymap, "composer")}
        assert all(rows[key.id].title == key.title and rows[key.id].tooltip == key.tooltip for key in KEYS)
        assert rows["do.regenerate"].keys == "f5"
        shown = ""
        for _ in range(12):
            shown += d.screen_text()
            await d.press("pagedown")
        assert all(key.id in shown for key in KEYS)
        assert "Keys" in d.screen_text()
        await d.press("escape")
        await d.send("hello")
        await d.press("tab", "f1")
        await d.until(lambda: "Tree and transcript: navigation" in d.screen_text(), "the keys of what has the focus")
        assert "Anywhere" not in d.screen_text().partition("Tree and transcript: navigation")[0]
        await d.press("escape", "f5")
        await d.until(lambda: len(d.app.chat.tree) == 3 and d.is_idle, "another reply by the rebound key")


async def test_every_binding_is_a_command_or_is_marked_as_none(open_app) -> None:
    async with open_app() as d:
        titles = {command.title for command in d.app.get_system_commands(d.app.screen)}
        assert all(key.title in titles for key in KEYS if key.in_palette)
        assert len({key.id for key in KEYS}) == len(KEYS)


async def test_a_window_can_be_resized(open_app) -> None:
    async with open_app(size=(140, 40)) as d:
        await d.send("hello")
        assert d.app.tree_pane.display
        await d.pilot.resize_terminal(60, 16)
        await d.until(lambda: not d.app.tree_pane.display, "the tree gives way")
        assert "Hello there." in d.screen_text()
        await d.press("tab")
        assert "← here" in d.screen_text()


async def test_a_change_that_the_store_refuses_is_reported_and_the_app_continues(open_app, monkeypatch) -> None:
    async with open_app() as d:
        reply = await d.send("hello")

        def full(*_):
            raise StoreError("The disk is full", "Free some space.")

        monkeypatch.setattr(d.app.store, "set_bookmark", full)
        await d.press("tab", "b")
        await d.until(lambda: "Free some space." in d.screen_text(), "the hint")
        monkeypatch.undo()
        await d.press("b")
        assert d.app.chat.tree[reply.id].bookmarked
