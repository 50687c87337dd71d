"""Going about the tree, and marking what is found there."""

from __future__ import annotations

from tests.fakes import scripted_model
from treechat.errors import TreechatError


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


async def test_what_an_undo_took_back_is_not_said_any_more_and_errors_stay(open_app, tmp_path) -> None:
    path = tmp_path / "a.db"
    async with open_app(path) as d:
        app = d.app
        reply = await d.send("one")
        app.tell(TreechatError("It failed", "Mend it."))
        await d.press("tab", "tab", "d")
        await d.until(lambda: any("hidden" in told.message for told in app._notifications), "the word about it")
        assert app.cursor_id == app.chat.current_id == app.chat.tree[reply.id].parent_id
    async with open_app(path) as d:
        app = d.app
        app.tell(TreechatError("It failed", "Mend it."))
        await d.press("tab", "u")
        await d.until(lambda: any("undone" in told.message for told in app._notifications), "the word about it")
        assert app.cursor_id == app.chat.current_id == reply.id
        await d.press("ctrl+r")
        await d.until(lambda: any("done again" in told.message for told in app._notifications), "the word about it")
        assert sorted(told.severity for told in app._notifications) == ["error", "information"]
