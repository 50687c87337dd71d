"""Siblings in columns: streamed in one batch, stopped one by one, one promoted, the others kept."""

from __future__ import annotations

import asyncio

from tests.fakes import scripted_model
from treechat.store import NewNode, Store
from treechat.tui.screens.siblings import SiblingsScreen

WORDS = ["First reply is the oldest.", "Alpha goes east.", "Beta goes west.", "Gamma stays here."]


def columns_of(text: str, line: int) -> list[str]:
    return [part.strip() for part in text.splitlines()[line].strip("│").split("│")]


async def three(d) -> list[str]:
    """Send a message, then request three more replies; return their ids when the columns are open."""
    first = await d.send("Where to?")
    d.app.chat.model.engine.pause_at = 5
    await d.press("tab", "tab", "3", "r")
    await d.until(lambda: isinstance(d.app.screen, SiblingsScreen), "the columns")
    return d.app.chat.tree.siblings(first.id)[1:]


async def test_three_replies_stream_in_columns_at_80_cells(open_app) -> None:
    async with open_app(reply=lambda n: WORDS[n % 4], size=(80, 24)) as d:
        ids = await three(d)
        await d.until(lambda: all(word in d.screen_text() for word in ("Alpha", "Beta", "Gamma")), "all three growing")
        text = d.screen_text()
        assert columns_of(text, 4) == ["Alpha", "Beta", "Gamma"]
        assert [part.split("  ")[-1] for part in columns_of(text, 1)] == ["writing"] * 3
        assert "3 alternatives to: Where to?" in text
        d.app.chat.model.engine.gate.set()
        await d.until(lambda: d.is_idle and "Gamma stays here." in d.screen_text(), "the ends")
        assert [d.app.chat.text(i) for i in ids] == WORDS[1:]
        assert "tok/s" in columns_of(d.screen_text(), 2)[1]


async def test_one_is_stopped_another_kept_and_a_third_promoted(open_app) -> None:
    async with open_app(reply=lambda n: WORDS[n % 4]) as d:
        chat = d.app.chat
        alpha, beta, gamma = await three(d)
        await d.until(lambda: "Gamma" in d.screen_text(), "growth")
        await d.press("s")
        await d.until(lambda: chat.streaming == {beta, gamma}, "the first one's end")
        assert "stopped" in d.screen_text()
        chat.model.engine.gate.set()
        await d.until(lambda: d.is_idle, "the ends")
        await d.press("l", "l", "enter")
        assert chat.current_id == gamma and d.app.composer.has_focus
        assert [chat.text(i) for i in (alpha, beta, gamma)] == ["Alpha", WORDS[2], WORDS[3]]
        assert len(chat.tree.siblings(gamma)) == 4
        await d.send("And then?")
        assert chat.tree[chat.path()[-2].parent_id].id == gamma


async def test_only_this_one_continues_and_escape_stops_it_then_closes(open_app) -> None:
    async with open_app(reply=lambda n: WORDS[n % 4]) as d:
        chat = d.app.chat
        alpha, beta, gamma = await three(d)
        await d.press("l", "o")
        await d.until(lambda: chat.streaming == {beta}, "the others' ends")
        await d.press("escape")
        await d.until(lambda: d.is_idle, "the last one's end")
        assert isinstance(d.app.screen, SiblingsScreen)
        await d.press("escape")
        assert not isinstance(d.app.screen, SiblingsScreen)
        assert {chat.tree[i].status for i in (alpha, beta, gamma)} == {"stopped"}


async def test_replies_continue_after_closing(open_app) -> None:
    async with open_app(reply=lambda n: WORDS[n % 4]) as d:
        ids = await three(d)
        await d.press("q")
        assert d.app.chat.streaming == set(ids)
        d.app.chat.model.engine.gate.set()
        await d.until(lambda: d.is_idle, "the ends")
        assert [d.app.chat.tree[i].status for i in ids] == ["complete"] * 3


async def test_a_hidden_column_comes_back_by_undo(open_app) -> None:
    async with open_app(reply=lambda n: WORDS[n % 4]) as d:
        chat = d.app.chat
        alpha, beta, _ = await three(d)
        await d.press("d")
        assert "s stops it first" in d.notices
        assert not chat.tree[alpha].hidden
        chat.model.engine.gate.set()
        await d.until(lambda: d.is_idle, "the ends")
        await d.press("d")
        assert chat.tree[alpha].hidden and d.app.screen.node_id == beta
        assert "2 alternatives" in d.screen_text()
        await d.press("q", "u")
        assert not chat.tree[alpha].hidden


async def test_columns_without_room_are_reached_and_long_texts_scroll(open_app, tmp_path) -> None:
    path = tmp_path / "many.db"
    with Store.open(path) as store:
        conversation = store.create_conversation("many")
        rows = [NewNode(None, "user", "Where to?", id="u")]
        long = "\n\n".join(f"line {i}" for i in range(60))
        rows += [NewNode("u", "assistant", f"reply {i}\n\n{long}", id=f"a{i}") for i in range(3_000)]
        store.add_nodes(conversation.id, rows)
        store.set_current(conversation.id, "a1")
    async with open_app(path) as d:
        await d.press("tab", "tab", "v")
        await d.until(lambda: "▸2/3000" in d.screen_text(), "the sibling under the cursor chosen")
        await d.press("l", "l", "l", "l")
        assert columns_of(d.screen_text(), 4) == ["reply 3", "reply 4", "reply 5"]
        assert "+2994 ›" in d.screen_text()
        await d.press("G")
        bottom = columns_of(d.screen_text(), 22)
        assert bottom[2] == "line 59" and bottom[0] != "line 59"
        await d.press("g", "space", "k")
        assert columns_of(d.screen_text(), 4)[2] != "reply 5"
        await d.pilot.resize_terminal(30, 12)

        def is_one_column() -> bool:
            inner = "".join(line.strip("│") for line in d.screen_text().splitlines()[1:-1])
            return "│" not in inner and ("reply" in inner or "line" in inner)

        await d.until(is_one_column, "one column")
        await d.press("g", "enter")
        assert d.app.chat.current_id == "a5"


async def test_a_fork_without_alternatives_says_how_to_make_some(open_app) -> None:
    async with open_app() as d:
        await d.send("hello")
        await d.press("tab", "v")
        assert "3 r makes three" in d.notices


async def test_hostile_replies_stay_in_their_columns(open_app) -> None:
    hostile = "\x1b[2J\u202egnp.exe 漢字漢字漢字漢字漢字漢字漢字 " + "e" + "\u0301" * 300 + " [red]x[/red]"
    model = scripted_model(lambda n: hostile if n else "ok")
    async with open_app(model=model) as d:
        await d.send("go")
        await d.press("tab", "tab", "3", "r")
        await d.until(lambda: isinstance(d.app.screen, SiblingsScreen) and d.is_idle, "the columns")
        await asyncio.sleep(0)
        text = d.screen_text()
        assert "\x1b" not in text and "\u202e" not in text and "␛[2J" in text
        rows = [line for line in text.splitlines() if line.count("│") == 4]
        places = {tuple(i for i, char in enumerate(_cells(line)) if char == "│") for line in rows}
        assert len(places) == 1


def _cells(line: str) -> list[str]:
    """Return the line by cells: wide characters twice, combining ones not at all."""
    from rich.cells import get_character_cell_size

    return [char for char in line for _ in range(get_character_cell_size(char))]
