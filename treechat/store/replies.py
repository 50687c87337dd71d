"""Streaming replies: start, flush and finish them, and recover them after a crash.

A flush appends the difference to the last flush, so its cost does not grow with the reply. When the reply ends, its
flushes are folded into the node's row. Until then the row and its `partials` together hold its text and span.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import NamedTuple

from treechat.errors import NodeNotFound, StoreError
from treechat.store.codec import clean, pack_ids, pack_logprobs
from treechat.store.connection import Connection
from treechat.store.conversations import touch
from treechat.store.nodes import conversation_id_of, insert_nodes, read_node
from treechat.store.owner import Owner, is_abandoned, this_process
from treechat.store.spans import read_flushed, write_spans, write_turns
from treechat.store.values import NewNode, short_id
from treechat.tree import Node, Role, Span, Status, Turn, preview_of


class _FlushedReply(NamedTuple):
    """A reply as the database holds it.

    text: the text flushed so far.
    span: the ids flushed so far; None before the first flush.
    num_partials: rows in `partials`.
    """

    text: str
    span: Span | None
    num_partials: int


class Replies(Connection):
    """Write streaming replies."""

    def __init__(self, conn: sqlite3.Connection, path: Path | None) -> None:
        super().__init__(conn, path)
        self._replies: dict[str, _FlushedReply] = {}

    def start_reply(
        self,
        conversation_id: str,
        parent_id: str | None,
        turn: Turn,
        *,
        id: str | None = None,
        role: Role = "assistant",
    ) -> Node:
        """Add the node of a reply before its first token: status `streaming`, owned by this process."""
        with self.transaction() as conn:
            new = NewNode(parent_id, role, "", id, status="streaming", turn=turn)
            (node,) = insert_nodes(conn, conversation_id, [new])
            _claim(conn, node.id, None)
        self._replies[node.id] = _FlushedReply("", None, 0)
        return node

    def reopen_reply(self, node_id: str) -> Node:
        """Set an ended reply to `streaming` again, to continue from its last token.

        The next `flush_reply` passes the whole text and span, the earlier part included.
        Raises NodeNotFound, and StoreError while another running process writes the reply.
        """
        with self.transaction() as conn:
            node = read_node(conn, node_id)
            if node.status == "streaming":
                _require_free(conn, node_id)
            else:
                conn.execute("UPDATE nodes SET status = 'streaming' WHERE id = ?", (node_id,))
                conn.execute("DELETE FROM partials WHERE node_id = ?", (node_id,))
            _claim(conn, node_id, None)
            self._replies[node_id] = _read_reply(conn, node_id)
            touch(conn, conversation_id_of(conn, node_id))
            return read_node(conn, node_id)

    def flush_reply(self, node_id: str, text: str, span: Span) -> None:
        """Write the whole reply so far; only the difference to the last flush reaches the disk.

        The earlier part may differ from the last flush. A finished reply does not change. Raises NodeNotFound.
        """
        text = clean(text)
        with self.transaction() as conn:
            last = self._replies.get(node_id)
            if last is None:
                if read_node(conn, node_id).status != "streaming":
                    return
                last = _read_reply(conn, node_id)
            keep_chars, keep_ids = _common_prefix(last, text, span)
            logprobs = None if span.logprobs is None else pack_logprobs(span.logprobs[keep_ids:])
            partial = (keep_chars, text[keep_chars:], keep_ids, pack_ids(span.ids[keep_ids:]), logprobs)
            conn.execute("INSERT INTO partials VALUES (?, ?, ?, ?, ?, ?, ?)", (node_id, last.num_partials, *partial))
            _claim(conn, node_id, span.tokenizer)
            preview = preview_of(text)
            # Write the status, too: another host may have marked this reply as interrupted in the meantime.
            conn.execute(
                "UPDATE nodes SET status = 'streaming', preview = ? WHERE id = ? AND (preview <> ? OR status <> ?)",
                (preview, node_id, preview, "streaming"),
            )
        self._replies[node_id] = _FlushedReply(text, span, last.num_partials + 1)

    def finish_reply(self, node_id: str, status: Status, text: str, span: Span, turn: Turn) -> None:
        """End the reply. Raises NodeNotFound.

        node_id: the node of the reply.
        status: how it ended.
        text: its whole text.
        span: its whole span.
        turn: its provenance.
        """
        with self.transaction() as conn:
            _end(conn, node_id, status, clean(text), span)
            write_turns(conn, [(node_id, turn)])
        self._replies.pop(node_id, None)

    def mark_interrupted(self) -> list[str]:
        """End the replies of dead processes as `interrupted`, with their flushes; returns their ids.

        A reply of a running process does not change, nor does one of another host flushed less than a day ago.
        """
        if not self.rows("SELECT 1 FROM nodes WHERE status = 'streaming' LIMIT 1"):
            return []
        marked = []
        with self.transaction() as conn:
            rows = conn.execute(
                "SELECT n.id, s.host, s.pid, s.started, s.flushed_at"
                " FROM nodes n LEFT JOIN streams s ON s.node_id = n.id WHERE n.status = 'streaming' ORDER BY n.seq"
            ).fetchall()
            for node_id, host, pid, started, flushed_at in rows:
                if host is None or is_abandoned(Owner(host, pid, started), flushed_at):
                    _end(conn, node_id, "interrupted", *read_flushed(conn, node_id))
                    marked.append(node_id)
        return marked


def _end(conn: sqlite3.Connection, node_id: str, status: Status, text: str, span: Span | None) -> None:
    # Write the text only if it differs: a write indexes it again.
    conn.execute("UPDATE nodes SET text = ? WHERE id = ? AND text <> ?", (text, node_id, text))
    query = "UPDATE nodes SET status = ?, preview = ? WHERE id = ?"
    if conn.execute(query, (status, preview_of(text), node_id)).rowcount == 0:
        raise NodeNotFound(f"There is no node {short_id(node_id)}")
    if span is not None:
        write_spans(conn, [(node_id, span)])
    conn.execute("DELETE FROM partials WHERE node_id = ?", (node_id,))
    conn.execute("DELETE FROM streams WHERE node_id = ?", (node_id,))
    touch(conn, conversation_id_of(conn, node_id))


def _require_free(conn: sqlite3.Connection, node_id: str) -> None:
    """Raise StoreError if another running process writes the reply."""
    query = "SELECT host, pid, started, flushed_at FROM streams WHERE node_id = ?"
    row = conn.execute(query, (node_id,)).fetchone()
    if row is not None and Owner(*row[:3]) != this_process() and not is_abandoned(Owner(*row[:3]), row[3]):
        raise StoreError(f"Another treechat is writing {short_id(node_id)}", "Wait for its end, or stop it there")


def _read_reply(conn: sqlite3.Connection, node_id: str) -> _FlushedReply:
    text, span = read_flushed(conn, node_id)
    query = "SELECT coalesce(max(seq) + 1, 0) FROM partials WHERE node_id = ?"
    (num_partials,) = conn.execute(query, (node_id,)).fetchone()
    return _FlushedReply(text, span, num_partials)


def _claim(conn: sqlite3.Connection, node_id: str, tokenizer: str | None) -> None:
    """Record that this process writes the reply, and the time. `tokenizer` None keeps the recorded one."""
    conn.execute(
        "INSERT OR REPLACE INTO streams (node_id, host, pid, started, flushed_at, tokenizer)"
        " VALUES (?, ?, ?, ?, ?, coalesce(?, (SELECT tokenizer FROM streams WHERE node_id = ?)))",
        (node_id, *this_process(), time.time(), tokenizer, node_id),
    )


def _common_prefix(last: _FlushedReply, text: str, span: Span) -> tuple[int, int]:
    """How many characters and ids the last flush and the new one share at their start."""
    if text.startswith(last.text):
        keep_chars = len(last.text)
    else:
        pairs = enumerate(zip(last.text, text, strict=False))
        keep_chars = next((i for i, (a, b) in pairs if a != b), min(len(last.text), len(text)))
    before = last.span
    if before is None or before.tokenizer != span.tokenizer or (before.logprobs is None) != (span.logprobs is None):
        return keep_chars, 0
    num_ids = len(before.ids)
    return keep_chars, num_ids if span.ids[:num_ids] == before.ids else 0
