"""Undo and redo restore the tree after any change."""

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from treechat.errors import NodeNotFound, UsageError
from treechat.store import NewNode, Store

CHANGES = st.lists(
    st.tuples(
        st.sampled_from(
            ["hide", "show", "label", "bookmark", "move", "rename", "hide_conversation", "graft", "undo", "redo"]
        ),
        st.integers(0, 7),
        st.integers(-1, 7),
    ),
    max_size=25,
)


def picture(store, conversation_id):
    tree = store.load_tree(conversation_id)
    shown = [info.id for info in store.conversations()]
    # After the undo of a copy, its nodes still exist but are hidden.
    nodes = {i: node for i, node in tree.nodes.items() if not (node.hidden and node.preview.startswith("copy"))}
    return nodes, [i for i in tree.walk(hidden=True) if i in nodes], store.conversation(conversation_id).title, shown


def build(store):
    conversation = store.create_conversation("start")
    ids: list[str] = []
    for parent in (None, 0, 1, 1, 2, 2, 0, None):
        ids.append(store.add_node(conversation.id, None if parent is None else ids[parent], "user", "x").id)
    return conversation.id, ids


def apply(store, conversation_id, ids, kind, a, b):
    match kind:
        case "hide" | "show":
            store.hide(ids[a], kind == "hide")
        case "label":
            store.set_label(ids[a], f"name {b}" if b >= 0 else None)
        case "bookmark":
            store.set_bookmark(ids[a], b > 3)
        case "move":
            with suppress(UsageError):
                store.move(ids[a], ids[b] if b >= 0 else None)
        case "rename":
            store.rename(conversation_id, f"title {b}")
        case "hide_conversation":
            store.hide_conversation(conversation_id, a > 3)
        case "graft":
            store.graft(conversation_id, [NewNode(ids[b] if b >= 0 else None, "user", f"copy {a}")])
        case "undo":
            store.undo(conversation_id)
        case "redo":
            store.redo(conversation_id)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CHANGES)
def test_undo_of_all_changes_restores_the_tree_and_redo_repeats_them(changes):
    with Store.open(None) as store:
        conversation_id, ids = build(store)
        before = picture(store, conversation_id)
        for change in changes:
            apply(store, conversation_id, ids, *change)
        while store.redo(conversation_id):
            pass
        after = picture(store, conversation_id)
        num_undone = 0
        while store.undo(conversation_id):
            num_undone += 1
        assert picture(store, conversation_id) == before
        num_redone = 0
        while store.redo():
            num_redone += 1
        assert num_redone == num_undone
        assert picture(store, conversation_id) == after


def test_the_event_says_what_changed(store, conversation):
    node = store.add_node(conversation.id, None, "user", "x")
    event = store.set_label(node.id, " plan ")
    assert (event.kind, event.node_id, event.before, event.after) == ("label", node.id, None, "plan")
    assert store.undo(conversation.id) == event
    assert store.node(node.id).label is None
    assert store.redo(conversation.id) == event
    assert store.node(node.id).label == "plan"


def test_setting_the_current_value_records_no_event(store, conversation):
    node = store.add_node(conversation.id, None, "user", "x")
    assert store.set_bookmark(node.id, False) is None
    assert store.set_label(node.id, "  ") is None
    assert store.undo() is None


def test_a_new_change_deletes_the_undone_events(store, conversation):
    node = store.add_node(conversation.id, None, "user", "x")
    store.set_label(node.id, "one")
    store.undo()
    store.set_label(node.id, "two")
    assert store.redo() is None
    assert store.node(node.id).label == "two"


def test_undo_survives_a_restart(db_path):
    with Store.open(db_path) as store:
        conversation = store.create_conversation("t")
        node = store.add_node(conversation.id, None, "user", "x")
        store.hide(node.id)
    with Store.open(db_path) as store:
        assert store.undo().node_id == node.id
    with Store.open(db_path) as store:
        assert not store.node(node.id).hidden
        assert store.redo().node_id == node.id
        assert store.node(node.id).hidden


def test_undo_in_one_conversation_does_not_change_another(store):
    (a, a_ids), (b, b_ids) = build(store), build(store)
    store.hide(a_ids[1])
    store.hide(b_ids[1])
    assert store.undo(a).node_id == a_ids[1]
    assert store.node(b_ids[1]).hidden
    assert store.undo().node_id == b_ids[1]
    assert store.undo(b) is None


def test_undo_restores_a_deleted_conversation(store, conversation):
    store.hide_conversation(conversation.id)
    assert store.conversations() == []
    store.undo()
    assert [info.id for info in store.conversations()] == [conversation.id]


def test_a_node_cannot_move_below_itself_or_to_another_conversation(store):
    (_, ids), (_, other_ids) = build(store), build(store)
    for target in (ids[0], ids[4], other_ids[0]):
        with pytest.raises(UsageError):
            store.move(ids[0], target)
    with pytest.raises(NodeNotFound):
        store.move(ids[0], "nobody")
    assert store.undo() is None
