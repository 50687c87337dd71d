"""Conversations and nodes are read as they were written, in order, and a damaged tree opens."""

import sqlite3
import time

import pytest

from treechat.errors import NodeNotFound, StoreError
from treechat.store import NewNode, Store, new_id
from treechat.tree import Span, Turn


def test_a_node_is_read_as_it_was_added(store, conversation):
    span = Span("tok", (1, 2, 4_000_000_000), (-0.5, -1.25, 0.0))
    turn = Turn("model", {"temperature": 0.5}, seed=2**64 - 1, finish_reason="stop", completion_tokens=3, ttft_s=0.1)
    node = store.add_node(
        conversation.id, None, "assistant", "hello\nthere", label="x", bookmarked=True, meta={"a": [1]}, spans=[span],
        turn=turn,
    )  # fmt: skip
    assert store.node(node.id) == node
    assert node.preview == "hello there"
    assert store.text(node.id) == "hello\nthere"
    assert store.meta(node.id) == {"a": [1]}
    assert store.span(node.id, "tok") == span
    assert store.span(node.id, "another") is None
    assert store.all_spans(node.id) == [span]
    assert store.turn(node.id) == turn
    assert store.conversation_of(node.id) == conversation.id


def test_a_second_span_of_the_same_tokenizer_replaces_the_first(store, conversation):
    node = store.add_node(conversation.id, None, "user", "x")
    store.put_span(node.id, Span("a", (1,)))
    store.put_span(node.id, Span("b", (2,)))
    store.put_span(node.id, Span("a", (3, 4)))
    assert store.spans([node.id, "nobody"], "a") == {node.id: Span("a", (3, 4))}
    assert {span.tokenizer for span in store.all_spans(node.id)} == {"a", "b"}


def test_children_keep_the_order_of_creation(store, conversation):
    root = store.add_node(conversation.id, None, "system", "s")
    ids = [store.add_node(conversation.id, root.id, "user", str(i)).id for i in range(20)]
    assert store.load_tree(conversation.id).children(root.id) == ids


def test_parents_may_come_later_in_a_batch(store, conversation):
    a, b = new_id(), new_id()
    store.add_nodes(conversation.id, [NewNode(b, "user", "child", id=a), {"parent_id": None, "role": "system",
                                                                         "text": "parent", "id": b}])  # fmt: skip
    assert store.load_tree(conversation.id).path(a) == [b, a]


def test_a_batch_with_an_unknown_parent_adds_nothing(store, conversation):
    with pytest.raises(NodeNotFound):
        store.add_nodes(conversation.id, [NewNode(None, "user", "x"), NewNode("nobody", "user", "y")])
    assert len(store.load_tree(conversation.id)) == 0


def test_a_parent_of_another_conversation_is_refused(store, conversation):
    other = store.create_conversation("other")
    root = store.add_node(other.id, None, "user", "x")
    with pytest.raises(NodeNotFound):
        store.add_node(conversation.id, root.id, "user", "y")


def test_an_id_in_use_is_refused_and_the_first_text_stays(store, conversation):
    node = store.add_node(conversation.id, None, "user", "first")
    with pytest.raises(StoreError):
        store.add_node(conversation.id, None, "user", "second", id=node.id)
    assert store.text(node.id) == "first"


def test_missing_ids_raise_not_found(store, conversation):
    for call in (store.node, store.text, store.meta, store.conversation_of, store.conversation, store.load_tree):
        with pytest.raises(NodeNotFound):
            call("nobody")
    assert store.texts(["nobody"]) == {}
    assert store.turn("nobody") is None


def test_more_ids_than_a_query_has_variables_are_read(store, conversation):
    nodes = store.add_nodes(conversation.id, [NewNode(None, "user", str(i)) for i in range(1700)])
    texts = store.texts(node.id for node in nodes)
    assert [texts[node.id] for node in nodes] == [str(i) for i in range(1700)]


def test_the_list_has_the_last_changed_first_and_counts_what_is_visible(store):
    old = store.create_conversation("old", created_at=1.0)
    new = store.create_conversation("new", created_at=2.0)
    root = store.add_node(old.id, None, "system", "s")
    for _ in range(2):
        child = store.add_node(old.id, root.id, "user", "u")
        store.add_node(old.id, child.id, "assistant", "a")
    first, second = store.conversations()
    assert (first.id, first.num_nodes, first.num_forks) == (old.id, 5, 1)
    assert (second.id, second.num_nodes, second.num_forks) == (new.id, 0, 0)
    store.hide(child.id)
    assert [(i.num_nodes, i.num_forks) for i in store.conversations(limit=1)] == [(3, 0)]
    store.hide_conversation(new.id)
    assert [info.id for info in store.conversations()] == [old.id]


def test_an_import_finds_its_earlier_conversation(store):
    made = store.create_conversation("x", source="chatgpt", source_id="abc", meta={"k": 1})
    assert store.find_source("chatgpt", "abc") == made
    assert store.find_source("claude", "abc") is None


def test_loading_a_tree_reads_no_text(store, conversation):
    store.add_node(conversation.id, None, "user", "long " * 10_000)
    read: set[str] = set()

    def note(action, table, column, *_):
        if action == sqlite3.SQLITE_READ and table == "nodes":
            read.add(column)
        return sqlite3.SQLITE_OK

    store.conn.set_authorizer(note)
    tree = store.load_tree(conversation.id)
    store.conn.set_authorizer(None)
    assert len(tree) == 1
    assert "preview" in read and not read & {"text", "meta"}


def test_a_lost_parent_and_a_cycle_are_repaired_and_noted(store, conversation):
    ids = [new_id() for _ in range(5)]
    parents = [None, ids[0], ids[1], ids[2], None]
    store.add_nodes(conversation.id, [NewNode(p, "user", "x", id=i) for i, p in zip(ids, parents, strict=True)])
    store.conn.execute("PRAGMA foreign_keys = OFF")
    # 1 and 2 are a cycle, 3 is below it, and the parent of 4 does not exist.
    store.conn.execute("UPDATE nodes SET parent_id = ? WHERE id = ?", (ids[2], ids[1]))
    store.conn.execute("UPDATE nodes SET parent_id = 'gone' WHERE id = ?", (ids[4],))
    tree = store.load_tree(conversation.id)
    assert set(tree.walk()) == set(ids)
    assert tree.path(ids[3])[-2:] == [ids[2], ids[3]]
    assert len(store.repairs) == 2
    assert len(store.verify()) == 3, "both repairs, and the row that SQLite itself finds dangling"


def test_a_lost_current_node_moves_to_a_visible_node(store, conversation):
    root = store.add_node(conversation.id, None, "system", "s")
    child = store.add_node(conversation.id, root.id, "user", "u")
    leaf = store.add_node(conversation.id, child.id, "assistant", "a")
    store.set_current(conversation.id, "gone")
    store.load_tree(conversation.id)
    assert store.conversation(conversation.id).current_id == leaf.id
    assert len(store.repairs) == 1
    store.hide(child.id)
    store.load_tree(conversation.id)
    assert store.conversation(conversation.id).current_id == root.id


@pytest.mark.parametrize(
    "text", ["a\0b", "lone \ud800 surrogate", "\udfff", "", "\U0001f600 é", "'; DROP TABLE nodes; --"]
)
def test_invalid_characters_are_replaced_and_the_rest_is_kept(store, text):
    conversation = store.create_conversation(text)
    node = store.add_node(conversation.id, None, "user", text, label=text or None, meta={"raw": text})
    kept = store.text(node.id)
    assert kept == text.replace("\0", "\ufffd").replace("\ud800", "\ufffd").replace("\udfff", "\ufffd")
    assert store.conversations()[0].title == kept
    assert store.meta(node.id) == {"raw": text}
    store.search(text)
    assert store.verify() == []


def test_a_surrogate_pair_becomes_its_character(store, conversation):
    assert store.text(store.add_node(conversation.id, None, "user", "\ud83d\ude00").id) == "\U0001f600"


def test_a_tree_of_10000_generations_and_one_of_5000_siblings_load_fast(store, conversation):
    ids = [new_id() for _ in range(10_000)]
    store.add_nodes(
        conversation.id,
        [NewNode(p, "user", "x", id=i) for i, p in zip(ids, [None, *ids[:-1]], strict=True)],
    )
    wide = store.create_conversation("wide")
    root = store.add_node(wide.id, None, "system", "s")
    store.add_nodes(wide.id, [NewNode(root.id, "user", "x") for _ in range(5_000)])
    start = time.process_time()
    deep_tree, wide_tree = store.load_tree(conversation.id), store.load_tree(wide.id)
    assert time.process_time() - start < 2
    assert deep_tree.path(ids[-1]) == ids
    assert len(wide_tree.children(root.id)) == 5_000


def test_the_view_prints_the_tree_depth_first(store, conversation):
    root = store.add_node(conversation.id, None, "system", "top")
    a = store.add_node(conversation.id, root.id, "user", "a")
    b = store.add_node(conversation.id, root.id, "user", "b")
    store.add_node(conversation.id, a.id, "assistant", "below a")
    store.hide(store.add_node(conversation.id, b.id, "assistant", "hidden").id)
    lines = [line for (line,) in store.conn.execute("SELECT line FROM tree")]
    assert lines == ["system: top", "  user: a", "    assistant: below a", "  user: b"]


def test_ids_are_short_lower_case_and_do_not_repeat():
    ids = {new_id() for _ in range(2000)}
    assert len(ids) == len({i[:8] for i in ids}) == 2000
    assert all(len(i) == 16 and i == i.lower() and i.isalnum() for i in ids)


def test_threads_share_one_store(store, conversation):
    from concurrent.futures import ThreadPoolExecutor

    def add(i: int) -> None:
        store.add_node(conversation.id, None, "user", str(i))
        store.load_tree(conversation.id)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(64)))
    tree = store.load_tree(conversation.id)
    assert sorted(int(node.preview) for node in tree.nodes.values()) == list(range(64))


def test_a_closed_store_raises_an_error():
    store = Store.open(None)
    store.close()
    store.close()
    with pytest.raises(StoreError):
        store.conversations()
