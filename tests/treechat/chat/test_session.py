"""Chat with a real store: send, fork, jump, stop, continue. The engine's prompts are joined spans."""

from dataclasses import replace

import pytest

from treechat.chat.events import NodeAdded, ReplyFinished, TextAdded
from treechat.chat.session import Chat
from treechat.chat.settings import Settings
from treechat.config import Sampling
from treechat.errors import GenerationError, ModelError, StoreError, UsageError
from treechat.store import Store


@pytest.fixture
def chat(store, model) -> Chat:
    return Chat.new(store, Settings(), model)


async def run(events) -> list:
    return [event async for event in events]


async def send(chat: Chat, text: str) -> str:
    await run(chat.send(text))
    assert chat.current_id is not None
    return chat.current_id


async def test_a_message_and_its_reply_are_stored(chat, store):
    events = await run(chat.send("Hi"))
    assert [type(e) for e in events[:2]] == [NodeAdded, NodeAdded]
    assert "".join(e.text for e in events if isinstance(e, TextAdded)) == "Hello."
    assert isinstance(events[-1], ReplyFinished)
    assert events[-1].node.status == "complete"
    again = Chat.open(store, chat.conversation_id)
    assert [(n.role, again.text(n.id)) for n in again.path()] == [("user", "Hi"), ("assistant", "Hello.")]
    assert again.current_id == chat.current_id
    assert again.title == "Hi"


async def test_the_nodes_are_stored_before_the_first_token(chat, store):
    events = chat.send("Hi")
    await anext(events)
    added = await anext(events)
    assert store.node(added.node.id).status == "streaming"
    await events.aclose()


async def test_a_second_turn_keeps_the_tokens_of_the_first_and_computes_only_new_ones(chat, engine):
    await send(chat, "Hi")
    reply = await send(chat, "More")
    first, second = engine.prompts
    assert second[: len(first)] == first
    assert second[len(first) : len(first) + 7] == (*b"Hello.", 257)
    turn = chat.turn(reply)
    assert turn.cached_tokens == len(first) + 6
    assert turn.computed_tokens == len(second) - turn.cached_tokens


async def test_a_message_below_an_earlier_node_makes_a_fork(chat, engine):
    first = await send(chat, "Hi")
    a = await send(chat, "A")
    chat.jump(first)
    b = await send(chat, "B")
    assert chat.tree.is_fork(first)
    assert chat.tree.common_ancestor(a, b) == first
    # The shared prefix includes the stop token of the first reply and the header of a user's turn.
    assert chat.turn(b).cached_tokens == chat.turn(a).cached_tokens + len(".\n.user\n")


async def test_a_system_prompt_is_the_root(store, model, engine):
    chat = Chat.new(store, Settings(system_prompt="Be brief"), model)
    await send(chat, "Hi")
    assert [n.role for n in chat.path()] == ["system", "user", "assistant"]
    assert b"Be brief" in bytes(i for i in engine.prompts[0] if i < 256)


async def test_siblings_come_from_one_prefix(chat, engine):
    reply = await send(chat, "Hi")
    engine.replies = ["one", "two", "three"]
    events = await run(chat.regenerate(reply, 3))
    siblings = chat.tree.siblings(reply)
    assert len(siblings) == 4
    assert {chat.text(i) for i in siblings} == {"Hello.", "one", "two", "three"}
    assert sum(isinstance(e, ReplyFinished) for e in events) == 3
    assert len(set(engine.prompts)) == 1


async def test_regenerating_below_a_user_message_adds_a_reply(chat):
    reply = await send(chat, "Hi")
    parent = chat.tree[reply].parent_id
    await run(chat.regenerate(parent))
    assert len(chat.tree.children(parent)) == 2


async def test_an_edit_is_a_sibling_and_gets_a_reply(chat):
    reply = await send(chat, "Hi")
    user = chat.tree[reply].parent_id
    await run(chat.edit(user, "Hey"))
    assert len(chat.tree.roots) == 2
    assert [chat.text(n.id) for n in chat.path()] == ["Hey", "Hello."]
    edited = chat.current_id
    await run(chat.edit(edited, "Bonjour."))
    assert chat.text(chat.current_id) == "Bonjour."
    assert chat.text(edited) == "Hello."


async def test_closing_the_generator_keeps_the_text_so_far(chat, engine, store):
    engine.pause_at = 3
    events = chat.send("Hi")
    async for event in events:
        if isinstance(event, TextAdded) and chat.text(chat.current_id) == "Hel":
            break
    await events.aclose()
    node = store.node(chat.current_id)
    assert node.status == "stopped"
    assert store.text(node.id) == "Hel"
    assert chat.streaming == set()


async def test_a_stopped_reply_continues_after_its_last_token(chat, engine, store):
    engine.pause_at = 3
    async for event in chat.send("Hi"):
        if isinstance(event, TextAdded) and chat.text(chat.current_id) == "Hel":
            assert chat.stop()
    stopped = chat.current_id
    assert chat.tree[stopped].status == "stopped"
    engine.pause_at = None
    engine.replies = ["lo again."]
    await run(chat.resume(stopped))
    assert chat.current_id == stopped
    assert chat.text(stopped) == "Hello again."
    assert engine.prompts[-1][-3:] == tuple(b"Hel")
    assert store.span(stopped, chat.model.fingerprint).ids == (*b"Hello again.", 257)


async def test_continuing_a_reply_that_has_children_makes_a_sibling(store, model, engine):
    chat = Chat.new(store, Settings(max_tokens=3), model)
    cut = await send(chat, "Hi")
    assert chat.turn(cut).finish_reason == "length"
    await send(chat, "And?")
    engine.replies = ["p!!"]
    await run(chat.resume(cut))
    assert chat.text(cut) == "Hel"
    assert chat.text(chat.current_id) == "Help!!"
    assert chat.current_id in chat.tree.siblings(cut)


async def test_a_complete_reply_is_not_continued(chat):
    reply = await send(chat, "Hi")
    with pytest.raises(UsageError, match="is complete"):
        await run(chat.resume(reply))


async def test_a_failure_is_reported_and_the_text_so_far_is_kept(chat, engine):
    engine.error = "out of memory"
    events = await run(chat.send("Hi"))
    assert events[-1].error == "out of memory"
    assert events[-1].node.status == "failed"
    assert chat.text(chat.current_id) == "Hello."


async def test_a_full_disk_stops_the_reply_and_is_reported(chat, engine, store, monkeypatch):
    engine.pause_at = 3

    def full(*_):
        raise StoreError("the disk is full", "Free some space.")

    events = chat.send("Hi")
    async for event in events:
        if isinstance(event, TextAdded):
            monkeypatch.setattr(store, "flush_reply", full)
            monkeypatch.setattr(store, "finish_reply", full)
    assert "disk is full" in event.error
    assert event.node.status == "failed"
    assert chat.streaming == set()


async def test_a_prompt_that_can_never_fit_is_refused_and_the_message_is_kept(chat, engine):
    engine.max_len = 10
    with pytest.raises(GenerationError, match="too long"):
        await run(chat.send("Hi"))
    assert [n.role for n in chat.path()] == ["user"]


async def test_tokens_that_the_model_does_not_know_are_refused_with_the_reason(chat, engine, monkeypatch):
    def unknown(*_):
        raise ValueError("a token id is outside 0..255")

    for name in ("fan_out", "warm"):
        monkeypatch.setattr(engine, name, unknown)
    with pytest.raises(GenerationError, match="outside 0"):
        await run(chat.send("Hi"))
    with pytest.raises(GenerationError, match="outside 0"):
        chat.kv.warm(chat.current_id)


async def test_sending_without_a_model_writes_nothing_and_raises(store):
    chat = Chat.new(store)
    with pytest.raises(ModelError, match="kept"):
        await run(chat.send("Hi"))
    assert chat.conversation_id is None
    assert chat.kv is None


async def test_costs_distinguish_warm_and_cold_paths(chat, engine):
    first = await send(chat, "Hi")
    assert chat.kv.cost(first).mark == "●"
    engine.cached.clear()
    cost = chat.kv.cost(first)
    assert cost.mark == "○"
    assert cost.seconds == pytest.approx(cost.computed / engine.stats().prefill_tokens_per_s)
    chat.kv.warm(first)
    assert chat.kv.cost(first).mark == "●"


async def test_a_conversation_made_elsewhere_gets_its_spans_on_the_first_resume(store, model, engine):
    conversation = store.create_conversation("imported")
    user = store.add_node(conversation.id, None, "user", "Hi")
    reply = store.add_node(conversation.id, user.id, "assistant", "Yo")
    chat = Chat.open(store, conversation.id, model=model)
    assert chat.kv.cost(reply.id).computed > 0
    chat.jump(reply.id)
    await send(chat, "More")
    text = model.template.tokenizer.decode(engine.prompts[0], skip_special_tokens=False)
    assert text.endswith(
        "user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n<|im_start|>user\nMore<|im_end|>\n<|im_start|>assistant\n"
    )


async def test_hiding_moves_the_current_node_up_and_undo_brings_the_subtree_back(chat):
    first = await send(chat, "Hi")
    second = await send(chat, "More")
    chat.nodes.hide(chat.tree[second].parent_id)
    assert chat.current_id == first
    assert chat.tree.is_hidden(second)
    assert chat.undo() is not None
    assert not chat.tree.is_hidden(second)
    assert chat.current_id == chat.store.conversation(chat.conversation_id).current_id == second
    assert chat.redo() is not None
    assert chat.tree.is_hidden(second)
    assert chat.current_id == first
    # Hide twice, further up: each undo makes the node current that was current before that hide.
    chat.nodes.hide(chat.tree[first].parent_id)
    assert chat.current_id is None
    chat.undo()
    assert chat.current_id == first
    chat.undo()
    assert chat.current_id == second


async def test_undoing_a_hide_keeps_a_current_node_chosen_since(chat):
    first = await send(chat, "Hi")
    second = await send(chat, "More")
    chat.nodes.hide(chat.tree[second].parent_id)
    third = await send(chat, "Else")
    chat.undo()
    assert not chat.tree.is_hidden(second)
    assert chat.current_id == third
    # If the hide did not move the current node, its undo does not either.
    chat.nodes.hide(second)
    chat.jump(first)
    chat.undo()
    assert chat.current_id == first


async def test_two_windows_read_each_others_nodes_and_keep_their_current_nodes(tmp_path, model):
    path = tmp_path / "t.db"
    with Store.open(path) as one, Store.open(path) as two:
        a = Chat.new(one, model=model)
        first = await send(a, "Hi")
        b = Chat.open(two, a.conversation_id, model=model)
        await send(b, "from b")
        assert a.current_id == first
        assert a.nodes.reload()
        assert a.current_id == first
        assert len(a.tree) == 4
        assert not a.nodes.reload()


async def test_the_first_reply_of_a_greedy_first_model_is_greedy(store, model):
    chat = Chat.new(store, Settings(), replace(model, greedy_first=True, sampling=Sampling(temperature=0.2)))
    first = await send(chat, "Hi")
    await run(chat.regenerate(first))
    second = chat.current_id
    assert [chat.turn(each).sampling["temperature"] for each in (first, second)] == [0.0, 0.2]
    await run(chat.send("Go on", n=2))
    assert chat.turn(chat.current_id).sampling["temperature"] == 0.2
    hot = Chat.new(store, Settings(sampling=Sampling(temperature=0.9)), replace(model, greedy_first=True))
    assert hot.turn(await send(hot, "Hi")).sampling["temperature"] == 0.9
