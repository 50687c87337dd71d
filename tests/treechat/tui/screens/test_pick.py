"""Search while typing: letters are drawn at once; results come from a thread, in order."""

from __future__ import annotations

import threading
import time

import pytest

from treechat.errors import StoreError
from treechat.store import NewNode, Reader, Store
from treechat.tui.screens.pick import MAX_CHOICES, PickScreen, StoreSearch
from treechat.tui.widgets.choice_list import ChoiceList, ListChoice


def many(path, num: int) -> None:
    with Store.open(path) as store:
        for i in range(num):
            conversation = store.create_conversation(f"talk {i}")
            rows = [NewNode(None, "user", f"question {i}", id=f"q{i}"), NewNode(f"q{i}", "assistant", "an answer")]
            store.add_nodes(conversation.id, rows)


class Held:
    """A search that returns when its query's gate is opened, one query at a time."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.gates: dict[str, threading.Event] = {}
        self.interrupted = 0

    def find(self, store: Store, query: str) -> list[ListChoice]:
        self.begun.append(query)
        gate = self.gates.setdefault(query, threading.Event())
        if not query:
            gate.set()
        assert gate.wait(30), query
        return [ListChoice(query, f"found for {query}")]

    def interrupt(self) -> None:
        self.interrupted += 1


async def test_late_results_are_dropped_and_letters_typed_in_between_are_not_searched(open_app, tmp_path) -> None:
    held = Held()
    async with open_app(tmp_path / "x.db", load_model=None) as d:
        find = StoreSearch(d.app.store, held.find)
        find.interrupt = held.interrupt
        chosen: list[str | None] = []
        d.app.push_screen(PickScreen("Search", find, "words"), chosen.append)
        await d.until(lambda: isinstance(d.app.screen, PickScreen) and d.app.screen.list.choices, "the list")
        await d.press("a")
        await d.until(lambda: held.begun[-1] == "a", "the first search")
        await d.press("b", "c", "d")
        assert d.app.screen.query_one("Input").value == "abcd" and "found for  " in d.screen_text()
        assert held.interrupted == 3
        held.gates["abcd"] = threading.Event()
        held.gates["a"].set()
        await d.until(lambda: held.begun[-1] == "abcd", "the last search")
        assert held.begun == ["", "a", "abcd"] and "found for a" not in d.screen_text()
        await d.press("enter")
        assert not chosen
        held.gates["abcd"].set()
        await d.until(lambda: chosen, "the choice that enter waited for")
        assert chosen == ["abcd"]


async def test_a_failed_search_is_reported_and_the_next_one_works(open_app, tmp_path) -> None:
    def find(store: Store, query: str) -> list[ListChoice]:
        if query == "a":
            raise StoreError("The disk failed")
        return [ListChoice("x", "found")]

    async with open_app(tmp_path / "x.db", load_model=None) as d:
        d.app.push_screen(PickScreen("Search", StoreSearch(d.app.store, find), "words"))
        await d.until(lambda: "found" in d.screen_text(), "the list")
        await d.press("a")
        await d.until(lambda: "The disk failed" in d.screen_text(), "the error")
        await d.press("b")
        await d.until(lambda: "found" in d.screen_text(), "the next")


async def test_many_conversations_are_listed_counted_and_narrowed_down(open_app, tmp_path) -> None:
    many(tmp_path / "many.db", 300)
    async with open_app(tmp_path / "many.db", load_model=None) as d:
        await d.press("ctrl+o")
        await d.until(lambda: len(d.app.screen.query_one(ChoiceList).choices) == MAX_CHOICES, "the list")
        await d.until(lambda: "talk 299  2 messages · 0 forks" in d.screen_text(), "what it holds")
        listed = d.app.screen.query_one(ChoiceList)
        await d.press("up")
        assert listed.chosen.text == "talk 100"
        await d.until(lambda: "talk 100  2 messages" in d.screen_text(), "what the last one holds")
        # Only visible conversations are counted, as the counts of a long list take longer than drawing it.
        assert len(listed.notes) < MAX_CHOICES
        await d.press("1", "7")
        await d.until(lambda: len(listed.choices) == 13, "17, 117, 217 and 170 to 179")
        await d.press("up")
        assert listed.chosen.text == "talk 17"
        await d.press("enter")
        await d.until(lambda: d.app.chat.title == "talk 17", "the conversation")


def test_a_reader_can_be_used_after_an_interrupt(tmp_path) -> None:
    many(tmp_path / "many.db", 3)
    with Store.open(tmp_path / "many.db") as store:
        reader = Reader(store)
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        errors: list[StoreError] = []

        def run() -> None:
            try:
                reader.store.rows(endless)
            except StoreError as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        while thread.is_alive():
            reader.interrupt()
            time.sleep(0.01)
        assert "interrupted" in errors[0].message
        # The reader sees data that the window's own connection writes.
        store.create_conversation("another")
        assert next(title for _, title in reader.store.titles()) == "another"
        with pytest.raises(StoreError):
            reader.store.create_conversation("not from here")
        reader.close()
        assert len(store.titles()) == 4


def test_a_store_in_memory_has_one_connection() -> None:
    with Store.open(None) as store:
        reader = Reader(store)
        store.create_conversation("here")
        assert reader.store.titles()[0][1] == "here"
        reader.interrupt()
        reader.close()
        assert store.titles()


@pytest.mark.parametrize("keys", [("tab", "M"), ("ctrl+g", *"bold"), ("tab", "C"), ("ctrl+o",)])
async def test_rows_of_lists_show_no_markdown_markers(open_app, keys) -> None:
    async with open_app(reply="is **bold** and `code`") as d:
        await d.send("what **bold** is")
        await d.press("tab", "r")
        await d.until(lambda: d.is_idle and len(d.app.chat.tree) == 3, "a second reply")
        await d.press("tab", "tab", *keys)
        await d.until(lambda: len(d.app.screen_stack) > 1 and " bold" in _inside(d), "the rows")
        assert "**" not in _inside(d) and "`" not in _inside(d)


def _inside(d) -> str:
    """The text of the modal screen."""
    region = d.app.screen.query_one(".window").region
    return "\n".join(line[region.x : region.right] for line in d.screen_text().split("\n")[region.y : region.bottom])
