"""Adverse conditions: a store that refuses writes, hidden roots, branches with nothing in common."""

from __future__ import annotations

import pytest

from tests.fakes import scripted_model
from tests.treechat.tui.seeded import press
from treechat.tui.bindings import KEYS

TAKES_LONG = ("app.quit", "do.editor", "do.pager")


@pytest.mark.parametrize("place", ["panes", "everywhere"])
async def test_no_key_brings_the_app_down_where_nothing_can_be_written(open_app, tmp_path, monkeypatch, place) -> None:
    """The store refuses writes, as if the disk were full. Each window that a key opens is answered, too."""
    monkeypatch.chdir(tmp_path)
    async with open_app(tmp_path / "a.db", reply=lambda n: f"reply {n}") as d:
        app = d.app
        await d.send("hello")
        await d.send("more")
        app.store.conn.execute("PRAGMA query_only = 1")
        told = []
        monkeypatch.setattr(app, "tell", lambda error, kept="": told.append((error.message, error.hint, kept)))
        for key in [key for key in KEYS if key.place == place and key.id not in TAKES_LONG]:
            app.tree_pane.focus()
            await press(d.pilot, key.keys.split(",")[0])
            while len(app.screen_stack) > 1:
                await press(d.pilot, "x", "enter")
                if len(app.screen_stack) > 1:
                    app.pop_screen()
        assert app.is_running and app._exception is None
        assert all(message and hint for message, hint, _ in told)
        refused = sum("cannot be written" in message for message, _, _ in told)
        # The other keys begin a new conversation; nothing of it is written yet.
        assert refused > 5 or place != "panes"
        app.store.conn.execute("PRAGMA query_only = 0")
        app.composer.focus()
        await d.send("and on")
        assert app.store.verify() == []


async def test_a_click_where_nothing_can_be_written_is_told(open_app, tmp_path) -> None:
    async with open_app(tmp_path / "a.db", size=(120, 30), reply=lambda n: f"reply {n}") as d:
        app = d.app
        await d.send("hello")
        await d.press("tab", "r")
        await d.until(lambda: d.is_idle and len(app.chat.tree) == 3, "a second reply")
        app.store.conn.execute("PRAGMA query_only = 1")
        other = next(i for i in app.chat.tree.siblings(app.chat.current_id) if i != app.chat.current_id)
        for _ in range(3):
            app.tree_pane.post_message(app.tree_pane.Chosen(other))
            await d.until(lambda: any(told.severity == "error" for told in app._notifications), "the reason")
            await d.pilot.pause()
        assert len(app._notifications) == 1, "one reason is told once"
        await d.press("escape", "escape", "k")
        assert app.is_running and app._exception is None


async def test_hiding_what_is_hoisted_shows_the_whole_tree_and_undo_goes_all_the_way_back(open_app) -> None:
    async with open_app(reply=lambda n: f"reply {n}") as d:
        app = d.app
        await d.send("one")
        await d.press("tab", "r")
        await d.until(lambda: d.is_idle and len(app.chat.tree) == 3, "a second reply")
        here = app.chat.current_id
        await d.press("0", "z", "d")
        assert app.tree_pane.hoisted_id is None and "2 turns" in d.screen_text()
        assert app.chat.tree.is_hidden(here)
        # Hide the rest, the root included.
        await d.press("g", "d")
        assert app.chat.current_id is app.cursor_id is None and app.chat.tree.num_visible == 0
        await press(d.pilot, *"jkhlJKgG0[]tscvbBymwp=", "space", "z", "Z")
        assert len(app.screen_stack) == 1 and app.is_running
        await d.press("u", "u")
        assert app.chat.current_id == app.cursor_id == here
        await d.press("ctrl+r", "ctrl+r")
        assert app.chat.current_id is None
        await d.send("a new beginning")
        assert len(app.chat.tree.roots) == 1 and app.chat.tree.num_visible == 2


async def test_branches_with_nothing_in_common_are_compared_and_jumped_between(open_app) -> None:
    async with open_app(reply=lambda n: f"reply {n}") as d:
        app = d.app
        first = (await d.send("one")).id
        await d.press("tab", "g", "enter")
        second = (await d.send("another beginning")).id
        for expected in (first, second):
            await d.press("tab", "equals_sign")
            assert "nothing in common" in d.screen_text()
            await d.press("enter")
            assert app.chat.current_id == expected and len(app.screen_stack) == 1
            app.composer.focus()
            await d.pilot.pause()


async def test_a_message_of_combining_characters_alone_is_kept_and_shown_in_every_list(open_app) -> None:
    marks = "\u0301\u0489\u20dd"
    model = scripted_model(marks * 30)
    async with open_app(model=model) as d:
        app = d.app
        reply = await d.send(marks * 20)
        assert app.chat.text(reply.id) == marks * 30
        for keys in (("M",), ("ctrl+o",), ("t",), ("s",), ("D",), ("m",), ("ctrl+g", *"x"), ("f2",)):
            app.tree_pane.focus()
            await d.press(*keys)
            assert all(len(row) < 400 for row in d.screen_text().split("\n"))
            while len(app.screen_stack) > 1:
                app.pop_screen()
        assert app.is_running and app._exception is None
