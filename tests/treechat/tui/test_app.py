"""The app as a person uses it: keys in, screen and tree out."""

from __future__ import annotations

import threading
from io import StringIO

from rich.console import Console as RichConsole
from textual import events

from tests.treechat.tui.scripted import scripted_model
from treechat.config import Config
from treechat.errors import Offline, StoreError
from treechat.models import Progress
from treechat.tui.bindings import KEYS
from treechat.tui.screens.help import help_table


async def test_a_message_is_sent_and_its_reply_appears(open_app) -> None:
    async with open_app() as d:
        reply = await d.send("Hi!")
        assert [node.role for node in d.app.chat.path()] == ["user", "assistant"]
        assert d.app.chat.text(reply.id) == "Hello *there*."
        await d.until(lambda: "Hello there." in d.screen_text(), "the reply as Markdown")
        assert "Hi!" in d.screen_text()
        assert d.app.composer.text == ""


async def test_the_first_frame_and_writing_come_before_the_model(open_app) -> None:
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


async def test_a_model_that_does_not_load_leaves_the_text_and_says_what_to_do(open_app) -> None:
    def load(progress):
        raise Offline("The hub cannot be reached", "Connect once.")

    async with open_app(load_model=load, model_spec="held back") as d:
        await d.until(lambda: "Connect once." in d.screen_text(), "the hint")
        d.app.composer.put("kept")
        await d.press("enter")
        assert d.app.composer.text == "kept"


async def test_jumping_to_an_own_turn_and_sending_makes_a_sibling(open_app) -> None:
    async with open_app() as d:
        app = d.app
        await d.send("first try")
        user = app.chat.path()[0]
        await d.press("tab")
        assert app.in_tree
        await d.press("g", "enter")
        assert app.chat.current_id == user.id
        assert app.composer.text == "first try"
        await d.send("second try")
        assert len(app.chat.tree.roots) == 2
        assert app.chat.text(app.chat.path()[0].id) == "second try"
        await d.until(lambda: "⑂ 2/2" in d.screen_text(), "the fork in the header")


async def test_siblings_are_changed_in_place(open_app) -> None:
    async with open_app(reply=lambda n: f"reply {n}") as d:
        app = d.app
        first = await d.send("hello")
        await d.press("tab", "tab")
        assert app.transcript.has_focus
        await d.press("3", "r")
        await d.until(lambda: len(app.chat.tree) == 5 and d.is_idle, "three more replies")
        await d.press("q")
        assert len(app.chat.tree.siblings(first.id)) == 4
        await d.press("K")
        assert app.cursor_id == first.id
        assert "reply 0" in d.screen_text()
        await d.press("J")
        assert app.cursor_id == app.chat.tree.siblings(first.id)[1]
        assert "reply 1" in d.screen_text()


async def test_hiding_is_undone_and_redone(open_app) -> None:
    async with open_app() as d:
        app = d.app
        reply = await d.send("hello")
        await d.press("tab", "tab", "d")
        assert app.chat.tree.is_hidden(reply.id)
        assert app.cursor_id == app.chat.path()[0].id
        await d.press("u")
        assert not app.chat.tree.is_hidden(reply.id)
        assert app.cursor_id == reply.id
        await d.press("ctrl+r")
        assert app.chat.tree.is_hidden(reply.id)
        await d.press("u")
        last = await d.send("more")
        await d.press("tab", "tab", "k", "d")
        assert app.chat.current_id == reply.id
        await d.press("u")
        assert app.cursor_id == last.parent_id
        assert (app.chat.current_id, app.view_id) == (last.id, last.id)
        assert app.transcript.blocks.node_ids[-1] == last.id


async def test_stopping_keeps_what_came_and_it_can_be_continued(open_app) -> None:
    model = scripted_model("A long story about nothing.")
    model.engine.pause_at = 6
    async with open_app(model=model) as d:
        app = d.app
        app.composer.put("tell")
        await d.press("enter")
        await d.until(lambda: app.chat.streaming and "A long" in d.screen_text(), "a growing reply")
        await d.press("escape")
        await d.until(lambda: d.is_idle, "the stop")
        reply = app.chat.path()[-1]
        assert (reply.status, app.chat.text(reply.id)) == ("stopped", "A long")
        assert "stopped · c continues" in d.screen_text()
        model.engine.pause_at = None
        await d.press("tab", "tab", "c")
        await d.until(lambda: app.chat.tree[reply.id].status == "complete" and d.is_idle, "the rest")
        assert app.chat.text(reply.id).startswith("A long")


async def test_quitting_while_a_reply_is_written_keeps_it(open_app, tmp_path) -> None:
    model = scripted_model("Half of a reply")
    model.engine.pause_at = 4
    path = tmp_path / "kept.db"
    async with open_app(path, model=model) as d:
        d.app.composer.put("go")
        await d.press("enter")
        await d.until(lambda: "Half" in d.screen_text(), "a growing reply")
        await d.press("ctrl+q")
    assert model.engine.is_closed
    async with open_app(path) as d:
        reply = d.app.chat.path()[-1]
        assert (reply.role, d.app.chat.text(reply.id), reply.status) == ("assistant", "Half", "stopped")


async def test_going_down_while_a_reply_is_written_keeps_it_too(open_app, tmp_path) -> None:
    model = scripted_model("Half of a reply")
    model.engine.pause_at = 4
    path = tmp_path / "kept.db"
    async with open_app(path, model=model) as d:
        d.app.composer.put("go")
        await d.press("enter")
        await d.until(lambda: "Half" in d.screen_text(), "a growing reply")
    assert model.engine.is_closed
    async with open_app(path) as d:
        reply = d.app.chat.path()[-1]
        assert (d.app.chat.text(reply.id), reply.status) == ("Half", "stopped")


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


async def test_escapes_in_messages_are_drawn_as_data(open_app) -> None:
    async with open_app(reply="\x1b[31mred\x1b]0;title\x07 <b>html</b> [bold]markup[/bold]") as d:
        await d.send("\x1b[2Jwipe [red]x[/red]")
        text = d.screen_text()
        assert "\x1b" not in text
        assert "␛[2Jwipe [red]x[/red]" in text
        assert "␛[31mred␛]0;title␇ <b>html</b> [bold]markup[/bold]" in text


async def test_escape_twice_opens_the_tree_on_the_current_node_and_enter_changes_nothing(open_app) -> None:
    async with open_app() as d:
        await d.send("hello")
        here = d.app.chat.current_id
        await d.press("escape", "escape")
        assert d.app.in_tree and d.app.cursor_id == here
        assert "← here" in d.screen_text()
        await d.press("enter")
        assert d.app.chat.current_id == here and d.app.composer.has_focus and d.app.composer.text == ""


async def test_a_jump_marks_what_the_branch_just_left_does_not_have_until_the_next_key(open_app) -> None:
    async with open_app(reply=lambda n: f"reply {n}") as d:
        await d.send("hello")
        await d.press("tab", "tab", "r")
        await d.until(lambda: len(d.app.chat.tree) == 3 and d.is_idle, "a second reply")
        await d.press("K", "enter")
        marked = [line for line in d.screen_text().splitlines() if line.startswith("┊")]
        assert any("reply 0" in line for line in marked) and not any("hello" in line for line in marked)
        await d.press("x")
        assert "┊" not in d.screen_text()


async def test_up_in_an_empty_composer_takes_the_last_own_turn(open_app) -> None:
    async with open_app() as d:
        await d.send("my words")
        await d.press("up")
        assert d.app.composer.text == "my words"
        assert d.app.editing_id == d.app.chat.path()[0].id
        await d.press("escape")
        assert d.app.composer.text == "" and d.app.editing_id is None


async def test_pasted_text_and_new_lines_are_only_text(open_app) -> None:
    async with open_app() as d:
        d.app.post_message(events.Paste("one\ntwo\n"))
        await d.until(lambda: "two" in d.app.composer.text, "the pasted text")
        await d.press("ctrl+j", "x")
        assert d.app.composer.text == "one\ntwo\n\nx"
        assert len(d.app.chat.tree) == 0


async def test_labels_and_bookmarks_show_in_the_tree(open_app) -> None:
    async with open_app(size=(120, 30)) as d:
        await d.send("hello")
        await d.press("tab", "b", "m", *"plan", "enter")
        row = next(line for line in d.screen_text().splitlines() if "← here" in line)
        assert "plan" in row and "★" in row
        await d.press("u", "u")
        row = next(line for line in d.screen_text().splitlines() if "← here" in line)
        assert "hello" in row and "★" not in row


async def test_a_protected_branch_is_marked_and_the_engine_is_told(open_app) -> None:
    async with open_app(size=(120, 30)) as d:
        await d.send("hello")
        protected_id = d.app.chat.current_id
        await d.press("tab", "p")
        assert list(d.app.chat.protected) == [protected_id]
        assert "◆" in next(line for line in d.screen_text().splitlines() if "← here" in line)
        await d.press("p")
        assert not d.app.chat.protected
        assert "◆" not in d.screen_text()


async def test_help_lists_each_binding_with_the_keys_in_force(open_app) -> None:
    async with open_app(size=(120, 100), config=Config(keymap={"do.regenerate": "f5"})) as d:
        await d.press("f1")
        table = help_table(d.app.config.keymap)
        console = RichConsole(width=160, file=StringIO())
        console.print(table)
        text = console.file.getvalue()
        assert all(key.id in text and key.title in text for key in KEYS)
        assert "f5" in text
        assert "Keys" in d.screen_text()
        await d.press("escape")
        await d.send("hello")
        await d.press("tab", "f5")
        await d.until(lambda: len(d.app.chat.tree) == 3 and d.is_idle, "another reply by the rebound key")


async def test_every_binding_is_a_command_or_says_why_not(open_app) -> None:
    async with open_app() as d:
        titles = {command.title for command in d.app.get_system_commands(d.app.screen)}
        assert all(key.title in titles for key in KEYS if key.in_palette)
        assert len({key.id for key in KEYS}) == len(KEYS)


async def test_a_conversation_is_chosen_from_the_list(open_app) -> None:
    async with open_app(size=(100, 30)) as d:
        await d.send("about cats")
        await d.press("ctrl+n")
        assert len(d.app.chat.tree) == 0
        await d.send("about dogs")
        await d.press("ctrl+o", *"cats", "enter")
        await d.until(lambda: d.app.chat.title == "about cats", "the other conversation")
        assert "about cats" in d.screen_text()


async def test_search_finds_a_message_of_this_conversation(open_app) -> None:
    async with open_app(reply=lambda n: f"fact {n} about lemurs" if n == 0 else "other") as d:
        await d.send("one")
        await d.send("two")
        await d.press("tab", "slash", *"lemurs", "enter")
        await d.until(lambda: d.app.cursor_id == d.app.chat.path()[1].id, "the found reply")


async def test_resting_on_a_cold_branch_warms_it_and_moving_cancels(open_app, tmp_path) -> None:
    path = tmp_path / "cold.db"
    async with open_app(path) as d:
        await d.send("one")
        await d.send("two")
    model = scripted_model("x")
    async with open_app(path, model=model) as d:
        await d.until(lambda: model.engine.warmed, "warming of the branch that the cursor rests on")
        await d.until(lambda: "●" in d.app.status.row, "the branch is resident")


async def test_one_window_survives_resizing(open_app) -> None:
    async with open_app(size=(140, 40)) as d:
        await d.send("hello")
        assert d.app.tree_pane.display
        await d.pilot.resize_terminal(60, 16)
        await d.until(lambda: not d.app.tree_pane.display, "the tree gives way")
        assert "Hello there." in d.screen_text()
        await d.press("tab")
        assert "← here" in d.screen_text()


async def test_a_change_that_the_store_refuses_is_told_and_the_app_goes_on(open_app, monkeypatch) -> None:
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
