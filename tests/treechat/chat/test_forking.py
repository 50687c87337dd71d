"""Forks inside a message: the sibling begins with the same ids, and only new tokens are generated."""

import math

import pytest

from treechat.chat.events import NodeAdded, ReplyFinished
from treechat.chat.forking import Alternative, alternatives, fork_at, tokens_of
from treechat.chat.session import Chat
from treechat.chat.settings import Settings
from treechat.errors import ModelError, UsageError

END = 257


@pytest.fixture
def chat(store, model) -> Chat:
    return Chat.new(store, Settings(), model)


async def run(events) -> list:
    return [event async for event in events]


async def reply_to(chat: Chat, text: str = "Hi") -> str:
    await run(chat.send(text))
    assert chat.current_id is not None
    return chat.current_id


async def test_the_tokens_of_a_reply_join_to_its_text_and_have_probabilities(chat):
    pieces = tokens_of(chat, await reply_to(chat))
    assert "".join(piece.text for piece in pieces) == "Hello."
    assert [piece.id for piece in pieces] == [*b"Hello.", END]
    assert pieces[0].probability == pytest.approx(math.exp(-0.5))


async def test_the_tokens_of_a_message_leave_out_the_text_of_the_template(chat):
    reply = await reply_to(chat, "Hi there")
    pieces = tokens_of(chat, chat.tree[reply].parent_id)
    assert "".join(piece.text for piece in pieces) == "Hi there"
    assert len(pieces) > len("Hi there")
    assert all(piece.probability is None for piece in pieces)


async def test_a_fork_with_an_alternative_is_a_sibling_that_begins_with_the_same_ids(chat, engine, store):
    engine.replies = ["Hello.", "p me."]
    reply = await reply_to(chat)
    events = await run(fork_at(chat, reply, 3, Alternative(ord("p"), "p", -2.0)))
    fork = chat.current_id
    assert isinstance(events[0], NodeAdded) and events[0].node.id == fork
    assert chat.tree.siblings(reply) == [reply, fork]
    assert (chat.text(reply), chat.text(fork)) == ("Hello.", "Helpp me.")
    span = store.span(fork, chat.model.fingerprint)
    assert span.ids == (*b"Helpp me.", END)
    assert span.logprobs == pytest.approx([-0.5, -0.5, -0.5, -2.0, *[-0.5] * 6])
    assert engine.prompts[-1] == (*engine.prompts[0], *b"Help")
    assert chat.turn(fork).cached_tokens == len(engine.prompts[0]) + 3


async def test_a_fork_without_an_alternative_continues_the_tokens_before_it(chat, engine):
    engine.replies = ["Hello.", "icopter"]
    reply = await reply_to(chat)
    await run(fork_at(chat, reply, 3))
    assert chat.text(chat.current_id) == "Helicopter"
    await run(fork_at(chat, reply, 0))
    assert chat.text(chat.current_id) == "icopter"


async def test_an_alternative_that_ends_the_reply_ends_it_without_the_model(chat, engine):
    reply = await reply_to(chat)
    events = await run(fork_at(chat, reply, 4, Alternative(END, "", -1.0)))
    assert len(engine.prompts) == 1
    assert isinstance(events[-1], ReplyFinished)
    fork = chat.tree[chat.current_id]
    assert (chat.text(fork.id), fork.status, chat.turn(fork.id).finish_reason) == ("Hell", "complete", "stop")
    await reply_to(chat, "More")
    assert engine.prompts[-1][: len(engine.prompts[0]) + 5] == (*engine.prompts[0], *b"Hell", END)


async def test_a_fork_that_begins_inside_a_character_completes_it(chat, engine):
    engine.replies = ["5 €", "!"]
    reply = await reply_to(chat)
    await run(fork_at(chat, reply, 2, Alternative("€".encode()[0], "\ufffd", -3.0)))
    assert chat.text(chat.current_id) == "5 \ufffd!"
    await run(fork_at(chat, reply, 4))
    assert chat.text(chat.current_id) == "5 \ufffd!"


async def test_alternatives_cost_one_token_and_add_no_node(chat, engine):
    reply = await reply_to(chat)
    found = await alternatives(chat, reply, 2)
    assert engine.prompts[-1] == (*engine.prompts[0], *b"He")
    assert (found.usage.computed_tokens, found.usage.cached_tokens) == (1, len(engine.prompts[-1]) - 1)
    probable = (("H", -0.5), ("x", -2.5), ("y", -4.0))
    assert found.choices == tuple(Alternative(ord(text), text, logprob) for text, logprob in probable)
    assert len(chat.tree) == 2


async def test_closing_the_generator_of_a_fork_keeps_its_text(chat, engine, store):
    reply = await reply_to(chat)
    engine.pause_at = 3
    events = fork_at(chat, reply, 2)
    await anext(events)
    await events.aclose()
    assert chat.streaming == set()
    assert store.node(chat.current_id).status == "stopped"
    assert store.text(chat.current_id).startswith("He")


async def test_an_invalid_fork_is_refused_with_the_reason(chat, engine):
    reply = await reply_to(chat)
    with pytest.raises(UsageError, match="Only a reply"):
        await run(fork_at(chat, chat.tree[reply].parent_id, 1))
    with pytest.raises(UsageError, match="7 tokens"):
        await run(fork_at(chat, reply, 8))
    chat.model = None
    with pytest.raises(ModelError):
        tokens_of(chat, reply)
