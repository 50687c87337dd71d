"""The memory view: rows by conversation and branch; free a branch; open another conversation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import scripted_model
from treechat.chat.kv.slot_usage import TierCounts
from treechat.tui.screens.memory import MemoryScreen
from treechat.tui.screens.memory_rows import BAR_WIDTH, bar

REPLIES = ["Alpha is the first.", "Beta is the second."]
COUNTS = st.integers(0, 10**6)


@given(COUNTS, COUNTS, COUNTS, st.integers(0, 10**6))
def test_a_bar_never_overflows_and_shows_the_device_first(device, host, cold, more):
    counts = TierCounts(device, host, cold)
    cells = [num for _, num in bar(counts, counts.total + more)]
    assert sum(cells) <= BAR_WIDTH and min(cells) >= 0
    assert bool(device) == bool(cells[0])


async def opened(d) -> None:
    await d.press("tab", "M")
    await d.until(lambda: isinstance(d.app.screen, MemoryScreen) and d.app.screen.rows.rows, "the rows")


async def test_a_branch_is_freed_and_its_sibling_stays(open_app) -> None:
    async with open_app(reply=lambda n: REPLIES[n % 2], size=(80, 24)) as d:
        chat = d.app.chat
        await d.send("hello")
        await d.press("tab", "tab", "r")
        await d.until(lambda: len(chat.tree) == 3 and d.is_idle, "a second reply")
        first, second = chat.tree.siblings(chat.current_id)
        await d.press("shift+tab", "shift+tab")
        await opened(d)
        rows = d.app.screen.rows
        assert [row.branch and row.branch.title for row in rows.rows] == [
            None, "hello", *REPLIES,
        ]  # fmt: skip
        before = chat.kv.cost(second).reused
        text = d.screen_text()
        assert "slots used" in text and "█" in text and "█ device" in text
        num_device = rows.rows[2].counts.device
        assert num_device > 10
        await d.press("j", "j", "d")
        await d.until(lambda: rows.rows[2].counts.device == 0, "the branch is freed")
        assert rows.index == 2 and "slots freed" in d.notices
        assert chat.kv.cost(second).reused == before and chat.kv.cost(first).computed >= num_device
        await d.press("escape")
        assert chat.text(first) == REPLIES[0]


async def test_enter_opens_the_conversation_at_the_branch(open_app, tmp_path) -> None:
    model = scripted_model(lambda n: f"reply {n}")
    async with open_app(tmp_path / "a.db", model=model, size=(120, 30)) as d:
        await d.send("about cats " * 3)
        cats = d.app.chat.conversation_id
        leaf = d.app.chat.current_id
        await d.press("ctrl+n")
        await d.send("about dogs")
        await opened(d)
        rows = d.app.screen.rows
        assert rows.rows[0].conversation.id == cats
        await d.press("g", "l", "j", "enter")
        await d.until(lambda: d.app.chat.conversation_id == cats, "the other conversation")
        assert d.app.cursor_id == leaf


async def test_rows_open_and_shut_and_hostile_titles_stay_in_their_line(open_app) -> None:
    async with open_app() as d:
        await d.send("\x1b[2J\u202e[red]漢字" * 9)
        d.app.chat.nodes.rename("\x1b]0;x\x07[bold]漢字" * 9)
        await opened(d)
        rows = d.app.screen.rows
        assert len(rows.rows) == 2
        await d.press("h")
        assert len(rows.rows) == 1
        await d.press("space")
        assert len(rows.rows) == 2
        text = d.screen_text()
        assert "\x1b" not in text and "\u202e" not in text and "␛]0;x␇[bold]" in text


async def test_without_a_model_the_reason_is_shown(open_app) -> None:
    async with open_app(load_model=None) as d:
        await d.press("tab", "M")
        assert "No model" in d.notices
