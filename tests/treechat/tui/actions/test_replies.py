"""Send, stop and quit: messages and partial replies are kept."""

from __future__ import annotations

import pytest
from textual import events

from tests.fakes import scripted_model


async def test_a_message_is_sent_and_its_reply_appears(open_app) -> None:
    async with open_app() as d:
        reply = await d.send("Hi!")
        assert [node.role for node in d.app.chat.path()] == ["user", "assistant"]
        assert d.app.chat.text(reply.id) == "Hello *there*."
        await d.until(lambda: "Hello there." in d.screen_text(), "the reply as Markdown")
        assert "Hi!" in d.screen_text()
        assert d.app.composer.text == ""


async def test_jumping_to_a_users_message_and_sending_makes_a_sibling(open_app) -> None:
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
        await d.until(lambda: "⋔ 2/2" in d.screen_text(), "the fork in the header")


async def test_a_stopped_reply_is_kept_and_can_be_continued(open_app) -> None:
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


@pytest.mark.parametrize("keys", [("ctrl+q",), ()], ids=["by the key", "by going down"])
async def test_quitting_while_a_reply_streams_keeps_it(open_app, tmp_path, keys) -> None:
    model = scripted_model("Half of a reply")
    model.engine.pause_at = 4
    path = tmp_path / "kept.db"
    async with open_app(path, model=model) as d:
        d.app.composer.put("go")
        await d.press("enter")
        await d.until(lambda: "Half" in d.screen_text(), "a growing reply")
        if keys:
            await d.press(*keys)
    assert model.engine.is_closed
    async with open_app(path) as d:
        reply = d.app.chat.path()[-1]
        assert (reply.role, d.app.chat.text(reply.id), reply.status) == ("assistant", "Half", "stopped")


async def test_escape_sequences_in_messages_are_drawn_as_text(open_app) -> None:
    async with open_app(reply="\x1b[31mred\x1b]0;title\x07 <b>html</b> [bold]markup[/bold]") as d:
        await d.send("\x1b[2Jwipe [red]x[/red]")
        text = d.screen_text()
        assert "\x1b" not in text
        assert "␛[2Jwipe [red]x[/red]" in text
        assert "␛[31mred␛]0;title␇ <b>html</b> [bold]markup[/bold]" in text


async def test_up_in_an_empty_composer_takes_the_users_last_message(open_app) -> None:
    async with open_app() as d:
        await d.send("my words")
        await d.press("up")
        assert d.app.composer.text == "my words"
        assert d.app.editing_id == d.app.chat.path()[0].id
        await d.press("escape")
        assert d.app.composer.text == "" and d.app.editing_id is None


async def test_pasted_text_and_new_lines_are_inserted_as_text(open_app) -> None:
    async with open_app() as d:
        d.app.post_message(events.Paste("one\ntwo\n"))
        await d.until(lambda: "two" in d.app.composer.text, "the pasted text")
        await d.press("ctrl+j", "x")
        assert d.app.composer.text == "one\ntwo\n\nx"
        assert len(d.app.chat.tree) == 0
