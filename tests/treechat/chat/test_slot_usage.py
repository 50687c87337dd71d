"""Slots are counted by conversation and branch, and a branch is freed without the others."""

from __future__ import annotations

import pytest

from treechat.chat.kv.slot_usage import TierCounts, free, slot_usage_of
from treechat.chat.session import Chat
from treechat.chat.settings import Settings


async def said(chat: Chat, text: str, **options) -> str:
    async for _ in chat.send(text, **options):
        pass
    return chat.current_id


@pytest.fixture
def settings() -> Settings:
    return Settings(system_prompt="Be brief.")


async def test_each_branch_counts_its_own_tokens_and_their_sum_is_the_conversations(store, model, engine, settings):
    chat = Chat.new(store, settings, model)
    first = await said(chat, "one")
    second = await said(chat, "two")
    await said(chat, "other two", parent_id=first)
    (usage,) = slot_usage_of(store, model).conversations
    assert [branch.depth for branch in usage.branches] == [0, 1, 1]
    assert [branch.title for branch in usage.branches] == ["one", "two", "other two"]
    assert sum((branch.counts for branch in usage.branches), TierCounts()) == usage.counts
    assert usage.counts.device == len({path[: n + 1] for path in engine.cached for n in range(len(path))})
    own = len(chat.path_ids(second)) - len(chat.path_ids(first))
    # The stop token of a reply has no KV before the next turn.
    assert usage.branches[1].counts.cold == 1 and 0 < usage.branches[1].counts.device < own


async def test_freeing_a_branch_keeps_its_siblings_and_ancestors(store, model, engine, settings):
    chat = Chat.new(store, settings, model)
    first = await said(chat, "one")
    second = await said(chat, "two")
    third = await said(chat, "other two", parent_id=first)
    before = {i: chat.kv.cost(i).reused for i in (first, second, third)}
    assert free(store, model, chat.conversation_id, chat.tree[second].parent_id) > 0
    after = {i: chat.kv.cost(i).reused for i in (first, second, third)}
    assert after[third] == before[third] and after[first] == before[first]
    assert after[second] < before[second]
    (usage,) = slot_usage_of(store, model).conversations
    assert usage.branches[1].counts.cold > usage.branches[1].counts.device


async def test_freeing_a_conversation_keeps_another_with_the_same_beginning(store, model, engine, settings):
    one, two = Chat.new(store, settings, model), Chat.new(store, settings, model)
    await said(one, "hello there")
    await said(two, "hello there")
    await said(two, "go on")
    await said(one, "or not")
    before = two.kv.cost(two.current_id)
    memory = slot_usage_of(store, model)
    assert len(memory.conversations) == 2 and all(usage.branches for usage in memory.conversations)
    free(store, model, one.conversation_id)
    assert two.kv.cost(two.current_id) == before
    assert one.kv.cost(one.current_id).computed > 5


async def test_a_cold_conversation_has_a_token_count_and_no_branches(store, model, engine, settings):
    chat = Chat.new(store, settings, model)
    await said(chat, "one")
    num = len(chat.path_ids(chat.current_id))
    other = Chat.new(store, settings, model)
    await said(other, "a very different beginning")
    free(store, model, chat.conversation_id)
    usages = {usage.id: usage for usage in slot_usage_of(store, model).conversations}
    assert usages[chat.conversation_id].branches == ()
    assert usages[chat.conversation_id].counts == TierCounts(cold=num)
    assert usages[other.conversation_id].counts.device > 0


async def test_a_conversation_of_any_depth_is_counted(store, model, engine, settings):
    chat = Chat.new(store, settings, model)
    await said(chat, "one")
    parent = chat.current_id
    rows = []
    from treechat.store import NewNode

    for number in range(3_000):
        rows.append(NewNode(parent, "user" if number % 2 == 0 else "assistant", "x", id=f"n{number}"))
        parent = f"n{number}"
    store.add_nodes(chat.conversation_id, rows)
    (usage,) = slot_usage_of(store, model).conversations
    assert usage.branches[0].num_nodes == 3_003 and usage.counts.cold > 3_000
