"""Streaming replies: flush, finish, continue, and recover after a crash."""

import random
import signal
import subprocess
import sys
import time

import pytest

from treechat.errors import StoreError
from treechat.store import Store
from treechat.store.owner import Owner, is_alive, this_process
from treechat.tree import Span, Turn

TURN = Turn("m", seed=1)


def span(n: int) -> Span:
    return Span("tok", tuple(range(n)), tuple(-i / 4 for i in range(n)))


def start(store, conversation):
    user = store.add_node(conversation.id, None, "user", "hi")
    return store.start_reply(conversation.id, user.id, TURN).id


def test_a_reply_can_be_read_after_each_flush_and_at_the_end(store, conversation):
    node_id = start(store, conversation)
    assert store.node(node_id).status == "streaming" and store.text(node_id) == ""
    for n in range(1, 8):
        store.flush_reply(node_id, "ab" * n, span(n))
        assert store.text(node_id) == "ab" * n
        assert store.span(node_id, "tok") == span(n)
        assert store.node(node_id).preview == "ab" * n
    store.finish_reply(node_id, "stopped", "the end", span(9), Turn("m", completion_tokens=9))
    assert store.node(node_id).status == "stopped"
    assert store.text(node_id) == "the end"
    assert store.span(node_id, "tok") == span(9)
    assert store.turn(node_id).completion_tokens == 9
    assert [hit.node_id for hit in store.search("the end")] == [node_id]
    assert store.conn.execute("SELECT count(*) FROM partials").fetchone() == (0,)


def test_a_flush_may_shorten_the_text_of_an_earlier_one(store, conversation):
    node_id = start(store, conversation)
    for text, ids in [("abc\ufffd", (1, 2)), ("abcé!", (1, 2, 3)), ("x", (7,)), ("xyz", (7, 8)), ("", ())]:
        store.flush_reply(node_id, text, Span("tok", ids))
        assert store.text(node_id) == text
        assert store.span(node_id, "tok") == Span("tok", ids)


def test_a_flush_after_the_end_changes_nothing(store, conversation):
    node_id = start(store, conversation)
    store.finish_reply(node_id, "complete", "done", span(2), TURN)
    store.flush_reply(node_id, "late", span(1))
    assert (store.text(node_id), store.node(node_id).status) == ("done", "complete")


def test_a_flush_costs_the_same_late_in_a_long_reply(store, conversation):
    node_id = start(store, conversation)
    store.flush_reply(node_id, "word " * 30_000, span(30_000))
    store.flush_reply(node_id, "word " * 30_000 + "more", span(30_001))
    rows = store.conn.execute("SELECT length(text), length(ids), length(logprobs) FROM partials").fetchall()
    assert rows[1] == (4, 4, 4)


def test_a_reopened_reply_continues_from_the_last_token(store, conversation):
    node_id = start(store, conversation)
    store.finish_reply(node_id, "stopped", "one", span(1), TURN)
    assert store.reopen_reply(node_id).status == "streaming"
    assert (store.text(node_id), store.span(node_id, "tok")) == ("one", span(1))
    store.flush_reply(node_id, "one two", span(2))
    assert (store.text(node_id), store.span(node_id, "tok")) == ("one two", span(2))
    store.finish_reply(node_id, "complete", "one two three", span(3), TURN)
    assert (store.text(node_id), store.span(node_id, "tok")) == ("one two three", span(3))
    assert store.verify() == []


def test_another_store_reads_a_streaming_reply_and_can_continue_it(db_path):
    with Store.open(db_path) as writer, Store.open(db_path) as reader:
        conversation = writer.create_conversation("t")
        node_id = start(writer, conversation)
        writer.flush_reply(node_id, "ab", span(2))
        version = reader.data_version()
        assert reader.text(node_id) == "ab"
        assert reader.mark_interrupted() == [], "this process lives"
        writer.flush_reply(node_id, "abc", span(3))
        assert reader.data_version() != version
        reader.flush_reply(node_id, "abcd", span(4))
        assert writer.text(node_id) == "abcd"


def own(store, node_id, owner, flushed_at):
    store.conn.execute(
        "UPDATE streams SET host = ?, pid = ?, started = ?, flushed_at = ? WHERE node_id = ?",
        (*owner, flushed_at, node_id),
    )


def test_only_the_replies_of_dead_owners_are_interrupted(store, conversation):
    me, now, day = this_process(), time.time(), 24 * 3600
    cases = {
        "mine": (me, now - 9 * day, False),
        "pid given again": (me._replace(started="long ago"), now, True),
        "no such pid": (me._replace(pid=2**22 + 1), now, True),
        "other host": (Owner("elsewhere", me.pid, me.started), now - day / 2, False),
        "other host, long ago": (Owner("elsewhere", me.pid, me.started), now - 2 * day, True),
    }
    ids = {}
    for name, (owner, flushed_at, _) in cases.items():
        ids[name] = start(store, conversation)
        store.flush_reply(ids[name], name, span(3))
        own(store, ids[name], owner, flushed_at)
    marked = store.mark_interrupted()
    assert marked == [ids[name] for name, case in cases.items() if case[2]]
    for name, node_id in ids.items():
        assert store.node(node_id).status == ("interrupted" if cases[name][2] else "streaming")
        assert (store.text(node_id), store.span(node_id, "tok")) == (name, span(3))


def test_a_reply_wrongly_marked_as_interrupted_streams_again_at_the_next_flush(store, conversation):
    node_id = start(store, conversation)
    store.flush_reply(node_id, "one", span(1))
    own(store, node_id, this_process()._replace(started="wrong"), time.time())
    assert store.mark_interrupted() == [node_id]
    store.flush_reply(node_id, "one two", span(2))
    assert store.node(node_id).status == "streaming"
    assert (store.text(node_id), store.span(node_id, "tok")) == ("one two", span(2))


def test_a_reply_that_another_window_writes_cannot_be_continued(store, conversation):
    node_id = start(store, conversation)
    own(store, node_id, Owner("elsewhere", 1, "x"), time.time())
    with pytest.raises(StoreError, match="writing"):
        store.reopen_reply(node_id)


def test_a_dead_process_is_not_alive_and_this_one_is():
    assert is_alive(this_process()) is True
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    assert is_alive(this_process()._replace(pid=child.pid)) is False


CHILD = """
import sys
from pathlib import Path
from treechat.store import Store
from treechat.tree import Span, Turn

store = Store.open(Path(sys.argv[1]))
node = store.start_reply(sys.argv[2], None, Turn("m"))
n, text = 0, ""
while True:
    n, text = n + 1, text + f"w{n + 1} "
    store.flush_reply(node.id, text, Span("tok", tuple(range(n)), (0.0,) * n))
    print(node.id, n, flush=True)
"""


def test_the_flushes_of_a_killed_process_are_kept(db_path):
    with Store.open(db_path) as store:
        conversation = store.create_conversation("t")
    dice = random.Random(7)
    children = []
    for _ in range(20):
        command = [sys.executable, "-c", CHILD, str(db_path), conversation.id]
        children.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        if len(children) % 4 == 0:
            # Run four at once, so that a kill hits a writer while others write.
            for child in children[-4:]:
                for _ in range(dice.randrange(1, 40)):
                    child.stdout.readline()
                child.send_signal(signal.SIGKILL)
            for child in children[-4:]:
                child.last = (child.communicate()[0].splitlines() or [""])[-1]
    with Store.open(db_path) as store:
        assert store.verify() == []
        nodes = list(store.load_tree(conversation.id).nodes.values())
        assert len(nodes) == 20
        for node in nodes:
            assert node.status == "interrupted"
            span_kept = store.span(node.id, "tok")
            num_flushes = len(span_kept.ids)
            assert store.text(node.id) == "".join(f"w{i} " for i in range(1, num_flushes + 1))
            assert span_kept.ids == tuple(range(num_flushes))
        said = {line[0]: int(line[1]) for line in (child.last.split() for child in children) if len(line) == 2}
        assert said and all(len(store.span(node_id, "tok").ids) >= n for node_id, n in said.items())
