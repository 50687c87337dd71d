"""Open and search conversations; the tour."""

from __future__ import annotations

from click.testing import CliRunner

from treechat.cli import main
from treechat.store import Store


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


async def test_the_palette_opens_the_tour_with_the_tree_focused(open_app) -> None:
    async with open_app(size=(120, 40)) as d:
        assert "tour" in d.screen_text()
        await d.press("ctrl+p")
        await d.until(lambda: len(d.app.screen_stack) > 1, "the palette")
        await d.press(*"Tour")
        await d.until(lambda: "to try every key on" in d.screen_text(), "the command")
        await d.press("down", "enter")
        await d.until(lambda: d.app.chat.title == "A tour of treechat", "the tour")
        await d.until(lambda: d.app.in_tree and "A conversation that branches" in d.screen_text(), "its first message")
        assert "start here" in d.screen_text()
        reply = await d.send("and on")
        assert d.app.chat.tree.path(reply.id)[:2] == d.app.chat.tree.path(d.app.chat.path()[1].id)


def test_the_tour_command_opens_the_app_at_the_tour(tmp_path, monkeypatch) -> None:
    opened = []
    monkeypatch.setenv("TEXTUAL_DRIVER", "one that needs no terminal")
    monkeypatch.setattr("treechat.tui.app.run_app", lambda path, **options: opened.append((path, options["chat"])))
    path = tmp_path / "t.db"
    result = CliRunner().invoke(main, ["tour", "--db", str(path)])
    assert result.exit_code == 0, result.output
    with Store.open(path) as store:
        assert opened == [(path, store.conversations()[0].id)]
        assert store.conversations()[0].title == "A tour of treechat"
