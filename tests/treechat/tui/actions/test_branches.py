"""Copy and replay branches; the target is picked from a list."""

from __future__ import annotations

from tests.fakes import scripted_model
from treechat.tui.screens.pick import PickScreen


async def test_a_branch_is_copied_under_a_picked_message_and_undone(open_app) -> None:
    async with open_app(reply=lambda n: f"reply {n}") as d:
        chat = d.app.chat
        first = await d.send("one")
        second = await d.send("two")
        await d.send("three")
        await d.press("tab", "tab", "k", "k", "k", "C")
        assert isinstance(d.app.screen, PickScreen) and d.app.cursor_id == chat.tree[second.id].parent_id
        await d.until(lambda: "Copy 4 messages under" in d.screen_text(), "the picker")
        await d.press(*"reply 0", "enter")
        copy = chat.current_id
        assert chat.tree[copy].parent_id == first.id
        assert [chat.text(i) for i in chat.tree.subtree(copy)] == ["two", "reply 1", "three", "reply 2"]
        await d.press("u")
        assert chat.tree[copy].hidden and chat.current_id == first.id
        await d.press("ctrl+r")
        assert not chat.tree[copy].hidden and d.app.cursor_id == copy


async def test_only_messages_that_the_copy_can_follow_are_offered(open_app) -> None:
    async with open_app(reply=lambda n: f"reply {n}") as d:
        await d.send("one")
        await d.press("tab", "tab", "C")
        await d.until(lambda: "enter copies" in d.screen_text(), "the picker")
        listed = [line for line in d.screen_text().splitlines() if "  you" in line or "  reply" in line]
        assert len(listed) == 1 and "one" in listed[0]
        await d.press("escape")
        assert len(d.app.chat.tree) == 2


async def test_turns_are_replayed_with_progress_and_escape_keeps_the_finished_ones(open_app) -> None:
    def reply(n: int) -> str:
        if n == 4:
            model.engine.gate.clear()
        return f"reply {n}"

    model = scripted_model(reply)
    async with open_app(model=model) as d:
        chat = d.app.chat
        await d.send("one")
        await d.send("two")
        await d.send("three")
        model.engine.pause_at = 5
        await d.press("tab", "tab", "g", "R")
        await d.until(lambda: "Replay 3 turns under" in d.screen_text(), "the picker")
        await d.press(*"beginning", "enter")
        await d.until(lambda: "replaying turn 1 of 3" in d.screen_text(), "the first turn")
        model.engine.gate.set()
        await d.until(lambda: "replaying turn 2 of 3" in d.screen_text() and chat.streaming, "the second turn")
        await d.until(lambda: chat.text(chat.current_id) == "reply", "what the second reply has so far")
        await d.press("escape")
        await d.until(lambda: d.is_idle, "the end")
        assert "replaying" not in d.screen_text()
        assert len(chat.tree.roots) == 2
        replayed = list(chat.tree.subtree(chat.tree.roots[1]))
        assert [chat.text(i) for i in replayed] == ["one", "reply 3", "two", "reply"]
        assert chat.tree[replayed[-1]].status == "stopped"
        await d.press("u")
        assert len(chat.tree.roots) == 1


async def test_a_replay_without_turns_is_refused(open_app) -> None:
    async with open_app() as d:
        await d.send("one")
        await d.press("tab", "tab", "R")
        assert "None of your turns" in d.notices
