"""Keys typed faster than the app handles them: each goes to the part that the previous key focused."""

from __future__ import annotations

import pytest
from textual import events
from textual.message import Message

from treechat.tui.key_queue import KeyQueue


def type_fast(app, *keys: str) -> None:
    """Send all keys at once, as a terminal does if it was not read for a while."""
    for key in keys:
        app.simulate_key(key)


@pytest.mark.parametrize("round_trips", [1, 3])
async def test_keys_after_tab_reach_the_part_that_it_focuses(open_app, round_trips) -> None:
    async with open_app() as d:
        app = d.app
        await d.send("hello")
        # To the tree, a bookmark there, to the composer, then letters that are commands in other parts.
        type_fast(app, *(("tab", "b", "i", "d", "b", "tab", "tab", "tab") * round_trips), "x", "enter")
        await d.until(lambda: app.chat.tree.num_visible == 4 and d.is_idle, "the message")
        assert app.chat.text(app.chat.path()[2].id) == "db" * round_trips + "x"
        assert app.composer.text == "" and app.composer.has_focus
        assert app.chat.path()[1].bookmarked == (round_trips % 2 == 1)


async def test_keys_after_a_key_that_opens_a_screen_go_to_that_screen(open_app) -> None:
    async with open_app() as d:
        app = d.app
        reply = await d.send("hello")
        type_fast(app, "tab", "m", *"bud", "enter", "m", *"dy", "enter", "i", *"next")
        await d.until(lambda: app.composer.text == "next", "the composer's text")
        assert app.chat.tree[reply.id].label == "dy"
        type_fast(app, "ctrl+o", "escape", "f1", "q", *"!!")
        await d.until(lambda: app.composer.text == "next!!", "what was typed behind two windows")
        assert len(app.screen_stack) == 1


async def test_text_after_enter_is_the_next_message(open_app) -> None:
    async with open_app() as d:
        app = d.app
        type_fast(app, *"hi", "enter", "enter", *"bye")
        await d.until(lambda: app.composer.text == "bye" and d.is_idle, "the rest")
        assert [app.chat.text(node.id) for node in app.chat.path()] == ["hi", "Hello *there*."]


async def test_a_text_pasted_after_a_key_waits_for_it(open_app) -> None:
    async with open_app() as d:
        app = d.app
        await d.send("hello")
        type_fast(app, "tab", "m")
        app.post_message(events.Paste("a name"))
        type_fast(app, "enter", "i")
        await d.until(lambda: app.cursor.label == "a name", "the label")
        await d.until(lambda: app.composer.has_focus and len(app.screen_stack) == 1, "the composer")
        assert app.composer.text == ""


async def test_a_lost_key_does_not_block_the_next_ones(open_app, monkeypatch) -> None:
    async with open_app() as d:
        app = d.app
        post = app.composer.post_message

        def lossy(message: Message) -> bool:
            return isinstance(message, KeyQueue.Passed) or post(message)

        monkeypatch.setattr(app.composer, "post_message", lossy)
        type_fast(app, *"abc")
        await d.until(lambda: app.composer.text == "abc", "letters that were not followed")
