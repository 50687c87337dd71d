"""Move the cursor and the current node through the tree."""

from __future__ import annotations


async def test_sibling_keys_show_another_sibling_in_place(open_app) -> None:
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


async def test_escape_twice_opens_the_tree_on_the_current_node_and_enter_changes_nothing(open_app) -> None:
    async with open_app() as d:
        await d.send("hello")
        here = d.app.chat.current_id
        await d.press("escape", "escape")
        assert d.app.in_tree and d.app.cursor_id == here
        assert "← here" in d.screen_text()
        await d.press("enter")
        assert d.app.chat.current_id == here and d.app.composer.has_focus and d.app.composer.text == ""


async def test_a_jump_marks_messages_that_the_previous_branch_lacks_until_the_next_key(open_app) -> None:
    async with open_app(reply=lambda n: f"reply {n}") as d:
        await d.send("hello")
        await d.press("tab", "tab", "r")
        await d.until(lambda: len(d.app.chat.tree) == 3 and d.is_idle, "a second reply")
        await d.press("K", "enter")
        marked = [line for line in d.screen_text().splitlines() if line.startswith("┊")]
        assert any("reply 0" in line for line in marked) and not any("hello" in line for line in marked)
        await d.press("x")
        assert "┊" not in d.screen_text()
