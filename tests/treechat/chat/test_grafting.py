"""Copies and replays of a branch below another node, with undo and redo across restarts."""

from __future__ import annotations

import pytest

from treechat.chat.events import ReplayProgress, ReplyFinished
from treechat.chat.grafting import fits_under, graft, rebase
from treechat.chat.session import Chat
from treechat.chat.settings import Settings
from treechat.errors import UsageError
from treechat.store import Store


@pytest.fixture
def chat(store, model) -> Chat:
    return Chat.new(store, Settings(), model)


async def said(chat: Chat, text: str, **options) -> str:
    """Send a message and wait for the reply; returns its id."""
    async for _ in chat.send(text, **options):
        pass
    return chat.current_id


def drawn(chat: Chat, node_id: str) -> list[tuple[int, str]]:
    """Return depth and text of the visible nodes of a subtree."""
    base = len(chat.tree.path(node_id))
    return [(len(chat.tree.path(i)) - base, chat.text(i)) for i in chat.tree.subtree(node_id)]


async def test_a_copied_branch_has_the_same_shape_texts_turns_and_sampled_ids(chat, engine):
    engine.replies = ["A.", "B.", "C.", "D."]
    first = await said(chat, "one")
    second = await said(chat, "two")
    third = await said(chat, "three", parent_id=second)
    top = chat.tree[second].parent_id
    other = await said(chat, "elsewhere", parent_id=None)
    before = drawn(chat, top)
    copy = graft(chat, top, other)
    assert drawn(chat, copy.id) == before == drawn(chat, top)
    assert chat.tree[copy.id].parent_id == other and chat.current_id == copy.id
    copied = list(chat.tree.subtree(copy.id))[-1]
    assert chat.turn(copied) == chat.turn(third)
    span, original = chat.span(copied), chat.span(third)
    assert span.ids == original.ids and span.logprobs is None and original.logprobs is not None
    assert chat.store.meta(copied)["copied_from"] == third
    await said(chat, "on", parent_id=copied)
    assert engine.prompts[-1][: len(chat.path_ids(copied))] == tuple(chat.path_ids(copied))
    assert first in chat.tree


async def test_a_branch_can_be_copied_below_itself_and_as_a_root(chat):
    reply = await said(chat, "one")
    top = chat.tree[reply].parent_id
    copy = graft(chat, top, reply)
    assert [text for _, text in drawn(chat, top)] == ["one", "Hello.", "one", "Hello."]
    assert drawn(chat, copy.id) == [(0, "one"), (1, "Hello.")]
    root = graft(chat, copy.id, None)
    assert chat.tree.roots == [top, root.id]


async def test_a_copy_that_cannot_follow_the_target_is_refused_and_adds_nothing(chat, engine):
    reply = await said(chat, "one")
    top = chat.tree[reply].parent_id
    for node_id, target_id in ((reply, reply), (reply, None), (top, top)):
        assert not fits_under(chat, chat.tree[node_id].role, target_id)
        with pytest.raises(UsageError):
            graft(chat, node_id, target_id)
    engine.pause_at = 3
    events = chat.regenerate(reply)
    await anext(events)
    with pytest.raises(UsageError, match="being written"):
        graft(chat, top, reply)
    await events.aclose()
    assert len(chat.tree) == len(chat.store.load_tree(chat.conversation_id)) == 3


async def test_a_copy_is_undone_and_redone_across_restarts(tmp_path, model):
    path = tmp_path / "tree.db"
    with Store.open(path) as store:
        chat = Chat.new(store, Settings(), model)
        reply = await said(chat, "one")
        copy = graft(chat, chat.tree[reply].parent_id, reply)
        conversation_id = chat.conversation_id
    with Store.open(path) as store:
        chat = Chat.open(store, conversation_id)
        event = chat.undo()
        assert (event.kind, event.node_id) == ("graft", copy.id)
        assert chat.current_id == reply and list(chat.tree.walk()) == chat.tree.path(reply)
    with Store.open(path) as store:
        chat = Chat.open(store, conversation_id)
        assert chat.redo().kind == "graft"
        assert drawn(chat, copy.id) == [(0, "one"), (1, "Hello.")]
        assert chat.redo() is None


CHANGES = {
    "hide": lambda chat, node_id: chat.nodes.hide(node_id),
    "hide all": lambda chat, node_id: chat.nodes.hide(chat.tree.path(node_id)[0]),
    "label": lambda chat, node_id: chat.nodes.set_label(node_id, "plan"),
    "bookmark": lambda chat, node_id: chat.set_bookmark(node_id, True),
    "rename": lambda chat, node_id: chat.nodes.rename("another title"),
    "graft": lambda chat, node_id: graft(chat, chat.tree[node_id].parent_id, node_id),
}


@pytest.mark.parametrize("kind", CHANGES)
async def test_every_change_of_structure_is_undone_and_redone_by_later_starts(tmp_path, model, kind):
    def picture(chat):
        return chat.title, chat.current_id, [(i, chat.tree[i]) for i in chat.tree.walk()]

    path = tmp_path / "tree.db"
    with Store.open(path) as store:
        chat = Chat.new(store, Settings(), model)
        reply = await said(chat, "one")
        conversation_id, before = chat.conversation_id, picture(chat)
        CHANGES[kind](chat, reply)
        after = picture(chat)
    assert before != after
    for step, expected in (("undo", before), ("redo", after), ("undo", before)):
        with Store.open(path) as store:
            chat = Chat.open(store, conversation_id)
            assert getattr(chat, step)().kind == kind.split()[0]
            assert picture(chat) == picture(Chat.open(store, conversation_id)) == expected


async def test_messages_are_replayed_in_order_with_new_replies(chat, engine):
    engine.replies = ["A.", "B.", "C.", "X.", "new B.", "new C."]
    await said(chat, "one")
    second = await said(chat, "two")
    third = await said(chat, "three")
    other = await said(chat, "elsewhere", parent_id=None)
    turns = [chat.tree[second].parent_id, chat.tree[third].parent_id]
    events = [event async for event in rebase(chat, turns, other)]
    assert [event for event in events if isinstance(event, ReplayProgress)] == [
        ReplayProgress(1, 2),
        ReplayProgress(2, 2),
    ]
    texts = [chat.text(node.id) for node in chat.path()]
    assert texts == ["elsewhere", "X.", "two", "new B.", "three", "new C."]
    assert [chat.text(i) for i in chat.tree.path(third)] == ["one", "A.", "two", "B.", "three", "C."]
    assert chat.undo().kind == "rebase"
    assert chat.current_id == other and list(chat.tree.subtree(other)) == [other]
    chat.redo()
    assert len(list(chat.tree.subtree(other))) == 5


async def test_a_stopped_replay_keeps_all_its_texts(chat, engine):
    first = await said(chat, "one")
    await said(chat, "two")
    third = await said(chat, "three")
    turns = [i for i in chat.tree.path(third) if chat.tree[i].role == "user"]
    async for event in rebase(chat, turns, None):
        if event == ReplayProgress(2, 3):
            engine.pause_at = 3
        if len(engine.prompts) == 5 and chat.streaming and chat.text(chat.current_id) == "Hel":
            chat.stop()
    statuses = [(node.role, node.status, chat.text(node.id)) for node in chat.path()]
    assert statuses == [
        ("user", "complete", "one"),
        ("assistant", "complete", "Hello."),
        ("user", "complete", "two"),
        ("assistant", "stopped", "Hel"),
    ]
    assert first in chat.tree and len(chat.tree) == 10


async def test_a_reply_that_fails_ends_the_replay(chat, engine):
    await said(chat, "one")
    second = await said(chat, "two")
    turns = [i for i in chat.tree.path(second) if chat.tree[i].role == "user"]
    engine.error = "out of luck"
    events = [event async for event in rebase(chat, turns, None)]
    assert isinstance(events[-1], ReplyFinished) and events[-1].error == "out of luck"
    assert [node.status for node in chat.path()] == ["complete", "failed"]


async def test_a_node_made_current_during_a_replay_stays_current(chat):
    first = await said(chat, "one")
    second = await said(chat, "two")
    turns = [i for i in chat.tree.path(second) if chat.tree[i].role == "user"]
    async for event in rebase(chat, turns, None):
        if isinstance(event, ReplyFinished) and len(chat.tree) == 6:
            chat.jump(first)
    assert chat.current_id == first and len(chat.tree) == 8
    assert chat.store.conversation(chat.conversation_id).current_id == first


async def test_a_replay_without_messages_is_refused(chat):
    reply = await said(chat, "one")
    with pytest.raises(UsageError, match="no message of yours"):
        async for _ in rebase(chat, [], reply):
            pass
