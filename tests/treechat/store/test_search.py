"""Search, and names of nodes."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treechat.errors import NodeNotFound
from treechat.store import Store


def fill(store, conversation, *texts):
    return [store.add_node(conversation.id, None, "user", text).id for text in texts]


def found(store, query, *args, **kwargs):
    return [hit.node_id for hit in store.search(query, *args, **kwargs)]


def test_all_words_must_match_and_the_last_may_be_a_prefix(store, conversation):
    a, b, _ = fill(store, conversation, "The quick brown fox", "A quick brawl", "slow")
    assert set(found(store, "QUICK br")) == {a, b}
    assert found(store, "quick fox") == [a]
    assert found(store, "qui fox") == []
    assert found(store, "") == found(store, "  ") == found(store, "quick", limit=0) == []


def test_accents_do_not_matter(store, conversation):
    (a,) = fill(store, conversation, "Élan vital")
    assert found(store, "elan") == [a]


def test_operators_are_plain_words(store, conversation):
    a, b = fill(store, conversation, "this OR that", 'say "NEAR" text:x*')
    assert found(store, "this OR that") == [a]
    assert found(store, "NEAR") == [b]
    assert found(store, '"NEAR" text:x') == [b]


def test_symbols_and_unspaced_scripts_are_found(store, conversation):
    a, b, c = fill(store, conversation, "f: int -> str", "今天天气很好", "100% sure_thing")
    assert found(store, "->") == found(store, "str ->") == [a]
    assert found(store, "天气") == [b]
    assert found(store, "%") == [c]
    assert "天气" in store.search("天气")[0].snippet


def test_a_page_of_text_is_a_valid_query(store, conversation):
    page = "many words -> " * 5000
    (a,) = fill(store, conversation, page)
    assert found(store, page) == found(store, page.replace("->", "")) == [a]


def test_hidden_nodes_and_conversations_are_not_found(store, conversation):
    root = store.add_node(conversation.id, None, "user", "needle")
    child = store.add_node(conversation.id, root.id, "user", "needle below")
    assert set(found(store, "needle")) == {root.id, child.id}
    store.hide(root.id)
    assert found(store, "needle") == []
    store.undo()
    store.hide_conversation(conversation.id)
    assert found(store, "needle") == []


def test_a_search_can_stay_in_one_conversation(store, conversation):
    other = store.create_conversation("Other")
    (a,), (b,) = fill(store, conversation, "word"), fill(store, other, "word")
    assert found(store, "word", conversation.id) == [a]
    assert set(found(store, "word")) == {a, b}
    assert store.search("word", other.id)[0].title == "Other"


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=[]), max_size=20))
def test_any_text_is_a_valid_query(query):
    with Store.open(None) as store:
        conversation = store.create_conversation("x")
        store.add_node(conversation.id, None, "user", query)
        store.search(query)
        with suppress(NodeNotFound):
            store.resolve(query)


def test_a_damaged_index_is_detected_and_rebuilt(store, conversation):
    (a,) = fill(store, conversation, "findable words")
    store.conn.execute("INSERT INTO nodes_fts (nodes_fts, rowid, text) VALUES ('delete', 1, 'findable words')")
    assert found(store, "findable") == []
    assert len(store.verify()) == 1
    store.rebuild_search()
    assert store.verify() == []
    assert found(store, "findable") == [a]


@pytest.fixture
def chain(store, conversation):
    ids = [None]
    for i in range(4):
        ids.append(store.add_node(conversation.id, ids[-1], "user", str(i)).id)
    store.set_current(conversation.id, ids[-1])
    return ids[1:]


def test_a_node_is_named_by_current_steps_prefix_and_label(store, conversation, chain):
    store.set_label(chain[1], "Good start")
    for name, index in {
        "@": 3,
        "@~2": 1,
        "@~": 2,
        "@~0": 3,
        chain[2]: 2,
        chain[2][:8]: 2,
        chain[2][:8].upper() + "~1": 1,
        "Good start": 1,
        "Good start~1": 0,
    }.items():
        assert store.resolve(name) == (store.node(chain[index]), conversation.id), name


@pytest.mark.parametrize("name", ["", "~", "nothing", "@~9", "@@", "@~x", "%", "_"])
def test_a_name_without_a_node_is_not_found(store, chain, name):
    with pytest.raises(NodeNotFound):
        store.resolve(name)


def test_an_ambiguous_prefix_lists_the_candidates(store, conversation):
    for node_id in ("abcd1111", "abcd2222"):
        store.add_node(conversation.id, None, "user", "x", id=node_id)
    with pytest.raises(NodeNotFound, match="abcd1111, abcd2222"):
        store.resolve("abcd")
    store.hide("abcd2222")
    assert store.resolve("abcd").node.id == "abcd1111"
    assert store.resolve("abcd2222").node.id == "abcd2222", "a whole id finds a hidden node"


def test_current_is_the_current_node_of_the_conversation_changed_last(store, conversation, chain):
    later = store.create_conversation("later")
    node = store.add_node(later.id, None, "user", "x")
    assert store.resolve("@").node == node
    assert store.resolve("@", conversation.id).node.id == chain[-1]
    assert store.resolve_conversation("@").id == later.id
    assert store.resolve_conversation(conversation.id[:9].upper()).id == conversation.id
    with pytest.raises(NodeNotFound):
        store.resolve_conversation("nothing")


def test_names_in_an_empty_store_are_not_found(store):
    for name in ("@", "@~1", "x"):
        with pytest.raises(NodeNotFound):
            store.resolve(name)
