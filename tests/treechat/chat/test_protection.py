"""The paths that the engine evicts last: the current one, bookmarks, visible nodes."""

from __future__ import annotations

from treechat.chat.kv.costs import with_ancestors
from treechat.chat.kv.protection import MAX_PATHS, leaves_of
from treechat.chat.session import Chat
from treechat.chat.settings import Settings
from treechat.store import Store
from treechat.tree import Span


async def sent(chat: Chat, text: str, **options) -> str:
    """Send a message and wait for the reply; returns its id."""
    async for _ in chat.send(text, **options):
        pass
    return chat.current_id


async def test_a_jump_protects_the_new_current_path(store, model, engine):
    chat = Chat.new(store, model=model)
    first = await sent(chat, "one")
    await sent(chat, "two")
    chat.jump(first)
    assert engine.protected == [tuple(chat.path_ids(first))]


async def test_bookmarks_and_visible_nodes_come_after_the_current_path(store, model, engine):
    chat = Chat.new(store, model=model)
    first = await sent(chat, "one")
    second = await sent(chat, "two")
    third = await sent(chat, "three", parent_id=first)
    chat.set_bookmark(second, True)
    assert engine.protected == [tuple(chat.path_ids(node_id)) for node_id in (third, second)]
    chat.set_bookmark(second, False)
    chat.kv.protect([first, second])
    assert engine.protected == [tuple(chat.path_ids(node_id)) for node_id in (third, second)]
    chat.jump(first)
    assert engine.protected == [tuple(chat.path_ids(node_id)) for node_id in (first, second)]


async def test_the_number_of_protected_paths_is_limited(store, model, engine):
    chat = Chat.new(store, model=model)
    root = await sent(chat, "one")
    leaves = [chat.add("user", str(i), root).id for i in range(MAX_PATHS + 9)]
    for node_id in leaves:
        chat.path_ids(node_id)
    chat.kv.protect(leaves)
    assert len(engine.protected) == MAX_PATHS


async def test_nodes_that_the_user_protects_come_directly_after_the_current_path(store, model, engine):
    chat = Chat.new(store, model=model)
    first = await sent(chat, "one")
    second = await sent(chat, "two")
    third = await sent(chat, "three", parent_id=first)
    chat.set_bookmark(third, True)
    chat.set_protected(second, True)
    chat.jump(first)
    assert engine.protected == [tuple(chat.path_ids(node_id)) for node_id in (first, second, third)]
    chat.set_protected(second, False)
    assert not chat.protected
    assert engine.protected == [tuple(chat.path_ids(node_id)) for node_id in (first, third)]


def test_marks_made_without_a_model_are_protected_after_it_is_loaded(store, model, engine):
    chat = Chat.new(store)
    node = chat.add("user", "hello", None)
    chat.set_protected(node.id, True)
    chat.set_bookmark(node.id, True)
    assert chat.kv is None and list(chat.protected) == [node.id]
    chat.model = model
    ids = tuple(chat.path_ids(node.id))
    assert engine.protected == []
    chat.kv.protect()
    assert set(engine.protected) == {ids}


async def test_a_lookup_of_costs_protects_nothing(store, model, engine):
    chat = Chat.new(store, model=model)
    first = await sent(chat, "one")
    engine.protected = []
    chat.kv.costs([first])
    assert engine.protected == []


async def test_of_nodes_on_one_path_only_the_last_is_protected(store, model):
    chat = Chat.new(store, model=model)
    first = await sent(chat, "one")
    second = await sent(chat, "two")
    third = await sent(chat, "three", parent_id=first)
    assert leaves_of(chat.tree, [first, third, second, third]) == [third, second]
    order = with_ancestors(chat.tree, [third, second])
    assert sorted(order) == sorted(chat.tree.nodes)
    assert all(order.index(n.parent_id) < order.index(n.id) for n in chat.tree.nodes.values() if n.parent_id)


async def test_costs_below_a_node_without_tokens_are_those_above_it_and_an_estimate(store, model, engine):
    chat = Chat.new(store, model=model)
    first = await sent(chat, "one")
    untold = chat.add("user", "x" * 40, first).id
    below = chat.add("assistant", "y" * 40, untold).id
    costs = chat.kv.costs([below])
    num_first = len(chat.path_ids(first))
    assert costs[first].computed <= 1
    assert costs[untold].reused == costs[below].reused == costs[first].reused
    assert costs[below].computed == num_first - costs[first].reused + 32


async def test_missing_spans_are_looked_up_again_only_after_another_window_has_written(tmp_path, model, monkeypatch):
    with Store.open(tmp_path / "x.db") as store, Store.open(tmp_path / "x.db") as other:
        conversation = store.create_conversation("imported")
        node = store.add_node(conversation.id, None, "user", "never tokenized")
        chat = Chat.open(store, conversation.id, Settings(), model)
        asked: list[list[str]] = []
        spans = store.spans
        monkeypatch.setattr(store, "spans", lambda ids, name: asked.append(list(ids)) or spans(ids, name))
        for _ in range(3):
            assert chat.kv.costs([node.id])[node.id].computed > 1
        assert asked == [[node.id]]
        other.put_spans([(node.id, Span(model.fingerprint, (1, 2, 3, 4)))])
        assert chat.kv.costs([node.id])[node.id].computed == 4
