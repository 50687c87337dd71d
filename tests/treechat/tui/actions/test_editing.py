"""Mark, name, hide and describe messages; undo and redo."""

from __future__ import annotations

from treechat.errors import TreechatError
from treechat.tree import Node, Turn
from treechat.tui.screens.details import DetailsScreen, facts_of


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


async def test_labels_and_bookmarks_show_in_the_tree(open_app) -> None:
    async with open_app(size=(120, 30)) as d:
        await d.send("hello")
        await d.press("tab", "b", "m", *"plan", "enter")
        row = next(line for line in d.screen_text().splitlines() if "← here" in line)
        assert "plan" in row and "★" in row
        await d.press("u", "u")
        row = next(line for line in d.screen_text().splitlines() if "← here" in line)
        assert "hello" in row and "★" not in row


async def test_an_undo_replaces_the_message_about_the_change_and_errors_stay(open_app, tmp_path) -> None:
    path = tmp_path / "a.db"
    async with open_app(path) as d:
        app = d.app
        reply = await d.send("one")
        app.tell(TreechatError("It failed", "Mend it."))
        await d.press("tab", "tab", "d")
        await d.until(lambda: "hidden" in d.notices, "the word about it")
        assert app.cursor_id == app.chat.current_id == app.chat.tree[reply.id].parent_id
    async with open_app(path) as d:
        app = d.app
        app.tell(TreechatError("It failed", "Mend it."))
        await d.press("tab", "u")
        await d.until(lambda: "undone" in d.notices, "the word about it")
        assert app.cursor_id == app.chat.current_id == reply.id
        await d.press("ctrl+r")
        await d.until(lambda: "redone" in d.notices, "the word about it")
        assert sorted(notice.severity for notice in app._notifications) == ["error", "information"]


def test_details_list_known_values_only() -> None:
    turn = Turn("smol", {"temperature": 0.2, "top_k": 40}, 7, "stop", 10, 8, 0, 2, 30, 0.0, 0.5, 3.4)
    facts = dict(facts_of(Node("a1", "u1", "assistant"), turn, None))
    assert (facts["model"], facts["seed"], facts["temperature"], facts["top k"]) == ("smol", "7", "0.2", "40")
    assert (facts["· reused"], facts["· computed"], facts["speed"]) == ("8", "2", "10.0 tokens/s")
    assert "model" not in dict(facts_of(Node("u1", None, "user"), None, None))


async def test_details_of_a_reply_are_shown_on_demand(open_app) -> None:
    async with open_app(size=(100, 40)) as d:
        await d.send("hello")
        await d.press("tab", "D")
        assert isinstance(d.app.screen, DetailsScreen)
        await d.until(lambda: "scripted-135m" in d.screen_text() and "seed" in d.screen_text(), "model and seed")
        await d.press("escape")
        assert not isinstance(d.app.screen, DetailsScreen)
