"""Compare two branches: differing words are found, no text is lost, the screen marks them without colour."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from treechat.tui.screens.branch_diff import DiffPart, diff_words
from treechat.tui.screens.compare import CompareScreen, PairView


@given(st.text("ab c,\n", max_size=30), st.text("ab c,\n", max_size=30))
def test_the_parts_joined_are_the_texts_and_the_shared_ones_agree(left, right):
    a, b = diff_words(left, right)
    assert "".join(part.text for part in a) == left
    assert "".join(part.text for part in b) == right
    shared = ["".join(part.text for part in side if not part.is_own) for side in (a, b)]
    assert shared[0] == shared[1]


def test_only_the_words_that_differ_are_own():
    left, right = diff_words("Stay in Florence, please.", "Stay in Rome, please.")
    assert [part for part in left if part.is_own] == [DiffPart("Florence", True)]
    assert [part for part in right if part.is_own] == [DiffPart("Rome", True)]


async def test_two_branches_are_compared_and_enter_jumps_to_the_other(open_app) -> None:
    replies = ["Stay in Florence.", "Stay in Rome.", "Yes."]
    async with open_app(reply=lambda n: replies[n % 3], size=(120, 30)) as d:
        florence = await d.send("Where?")
        await d.press("tab", "tab", "r")
        await d.until(lambda: len(d.app.chat.tree) == 3 and d.is_idle, "a second reply")
        rome = d.app.chat.current_id
        await d.press("K", "equals_sign")
        await d.until(lambda: isinstance(d.app.screen, CompareScreen) and "+ Assistant" in d.screen_text(), "both")
        assert "1 message in common" in d.screen_text()
        assert "Stay in Rome." in d.screen_text() and "Stay in Florence." in d.screen_text()
        pair = d.app.screen.query_one(PairView).pair
        assert [part.text for part in pair.right if part.is_own] == ["Florence"]
        await d.press("enter")
        assert d.app.chat.current_id == florence.id != rome
        await d.press("tab", "tab", "equals_sign")
        await d.until(lambda: isinstance(d.app.screen, CompareScreen), "the sibling, from the current branch")
        await d.press("escape")
        assert d.app.chat.current_id == florence.id


async def test_a_branch_without_a_fork_has_nothing_to_compare_with(open_app) -> None:
    async with open_app() as d:
        await d.send("hello")
        await d.press("tab", "equals_sign")
        await d.until(lambda: "Nothing to compare with" in d.screen_text(), "the reason")
