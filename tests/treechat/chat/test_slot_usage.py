"""What the slots hold is told by conversation and branch, and one branch is freed without touching the others."""

from __future__ import annotations

import pytest

from treechat.chat.kv.slot_usage import Held, free, memory_of
from treechat.chat.session import Chat
from treechat.chat.settings import Settings


async def said(chat: Chat, text: str, **options) -> str:
    async for _ in chat.send(text, **options):
        pass
    return chat.current_id


@pytest.fixture
def settings() -> Settings:
    return Settings(system_prompt="Be brief.")


async def test_each_branch_holds_its_own_tokens_and_the_sum_is_the_conversations(store, model, engine, settings):
    chat = Chat.new(store, settings, model)
    first = await said(chat, "one")
    second = await said(chat, "two")
    await said(chat, "other two", parent_id=first)
    (holding,) = memory_of(store, model).holdings
    assert [branch.depth for branch in holding.branches] == [0, 1, 1]
    assert [branch.title for branch in holding.branches] == ["one", "two", "other two"]
    assert sum((branch.held for branch in holding.branches), Held()) == holding.held
    assert holding.held.device == len({path[: n + 1] for path in engine.cached for n in range(len(path))})
    own = len(chat.path_ids(second)) - len(chat.path_ids(first))
    # The stop token of a reply has no KV before the next turn.
    assert holding.branches[1].held.cold == 1 and 0 < holding.branches[1].held.device < own


async def test_freeing_a_branch_leaves_its_siblings_and_what_is_above(store, model, engine, settings):
    chat = Chat.new(store, settings, model)
    first = await said(chat, "one")
    second = await said(chat, "two")
    third = await said(chat, "other two", parent_id=first)
    before = {i: chat.kv.cost(i).reused for i in (first, second, third)}
    assert free(store, model, chat.conversation_id, chat.tree[second].parent_id) > 0
    after = {i: chat.kv.cost(i).reused for i in (first, second, third)}
    assert after[third] == before[third] and after[first] == before[first]
    assert after[second] < before[second]
    (holding,) = memory_of(store, model).holdings
    assert holding.branches[1].held.cold > holding.branches[1].held.device


async def test_freeing_a_conversation_leaves_another_that_begins_alike(store, model, engine, settings):
    one, two = Chat.new(store, settings, model), Chat.new(store, settings, model)
    await said(one, "hello there")
    await said(two, "hello there")
    await said(two, "go on")
    await said(one, "or not")
    before = two.kv.cost(two.current_id)
    memory = memory_of(store, model)
    assert len(memory.holdings) == 2 and all(holding.branches for holding in memory.holdings)
    free(store, model, one.conversation_id)
    assert two.kv.cost(two.current_id) == before
    assert one.kv.cost(one.current_id).computed > 5


async def test_cold_conversations_are_told_by_their_tokens_alone(store, model, engine, settings):
    chat = Chat.new(store, settings, model)
    await said(chat, "one")
    num = len(chat.path_ids(chat.current_id))
    other = Chat.new(store, settings, model)
    await said(other, "a very different beginning")
    free(store, model, chat.conversation_id)
    holdings = {holding.id: holding for holding in memory_of(store, model).holdings}
    assert holdings[chat.conversation_id].branches == ()
    assert holdings[chat.conversation_id].held == Held(cold=num)
    assert holdings[other.conversation_id].held.device > 0


async def test_a_conversation_of_any_depth_is_told(store, model, engine, settings):
    chat = Chat.new(store, settings, model)
    await said(chat, "one")
    parent = chat.current_id
    rows = []
    from treechat.store import NewNode

    for number in range(3_000):
        rows.append(NewNode(parent, "user" if number % 2 == 0 else "assistant", "x", id=f"n{number}"))
        parent = f"n{number}"
    store.add_nodes(chat.conversation_id, rows)
    (holding,) = memory_of(store, model).holdings
    assert holding.branches[0].num_nodes == 3_003 and holding.held.cold > 3_000
