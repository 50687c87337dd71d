"""Replies in the making: begun, flushed, finished, and found again after a crash.

A flush appends what is new since the last one, so its cost does not grow with the reply. What was flushed is folded
into the node's row when the reply ends; until then the row and its `partials` together are its text and span.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import NamedTuple

from treechat.errors import NodeNotFound, StoreError
from treechat.store.codec import clean, pack_ids, pack_logprobs
from treechat.store.ids import short_id
from treechat.store.nodes import Nodes
from treechat.store.owner import Owner, is_abandoned, this_process
from treechat.store.spans import write_spans, write_turns
from treechat.tree import Node, Role, Span, Status, Turn, preview_of


class _Flushed(NamedTuple):
    """What of a reply is in the database."""

    text: str
    span: Span | None
    num_partials: int


class Replies(Nodes):
    """The part of the store that knows replies in the making."""

    def __init__(self, conn: sqlite3.Connection, path: Path | None) -> None:
        super().__init__(conn, path)
        self._replies: dict[str, _Flushed] = {}

    def start_reply(
        self,
        conversation_id: str,
        parent_id: str | None,
        turn: Turn,
        *,
        id: str | None = None,
        role: Role = "assistant",
    ) -> Node:
        """Add the row of a reply before its first token, `streaming` and owned by this process."""
        with self._writing() as conn:
            node = self.add_node(conversation_id, parent_id, role, "", id=id, status="streaming", turn=turn)
            _own(conn, node.id, None)
        self._replies[node.id] = _Flushed("", None, 0)
        return node

    def reopen_reply(self, node_id: str) -> Node:
        """Make an ended reply `streaming` again, to go on from its last token.

        Raises NodeNotFound, and StoreError while another living process writes it. The next `flush_reply` passes the
        whole text and span, what was there before included.
        """
        with self._writing() as conn:
            node = self.node(node_id)
            if node.status == "streaming":
                self._require_free(node_id)
            else:
                conn.execute("UPDATE nodes SET status = 'streaming' WHERE id = ?", (node_id,))
                conn.execute("DELETE FROM partials WHERE node_id = ?", (node_id,))
            _own(conn, node_id, None)
            self._replies[node_id] = self._read_flushed(node_id)
            self._touch(self.conversation_of(node_id))
            return self.node(node_id)

    def flush_reply(self, node_id: str, text: str, span: Span) -> None:
        """Keep the whole reply so far. What went before may have changed; only the difference is written.

        A reply that was finished stays as it is. Raises NodeNotFound.
        """
        text = clean(text)
        with self._writing() as conn:
            last = self._replies.get(node_id)
            if last is None:
                if self.node(node_id).status != "streaming":
                    return
                last = self._read_flushed(node_id)
            keep_chars, keep_ids = _kept(last, text, span)
            logprobs = None if span.logprobs is None else pack_logprobs(span.logprobs[keep_ids:])
            partial = (keep_chars, text[keep_chars:], keep_ids, pack_ids(span.ids[keep_ids:]), logprobs)
            conn.execute("INSERT INTO partials VALUES (?, ?, ?, ?, ?, ?, ?)", (node_id, last.num_partials, *partial))
            _own(conn, node_id, span.tokenizer)
            preview = preview_of(text)
            # The status too: another host may have taken this process for dead meanwhile.
            conn.execute(
                "UPDATE nodes SET status = 'streaming', preview = ? WHERE id = ? AND (preview <> ? OR status <> ?)",
                (preview, node_id, preview, "streaming"),
            )
        self._replies[node_id] = _Flushed(text, span, last.num_partials + 1)

    def finish_reply(self, node_id: str, status: Status, text: str, span: Span, turn: Turn) -> None:
        """End the reply with its whole text, span and turn; `status` says how. Raises NodeNotFound."""
        with self._writing() as conn:
            self._end(conn, node_id, status, clean(text), span)
            write_turns(conn, [(node_id, turn)])
        self._replies.pop(node_id, None)

    def _end(self, conn: sqlite3.Connection, node_id: str, status: Status, text: str, span: Span | None) -> None:
        # The text is written only where it differs: writing it indexes it again.
        conn.execute("UPDATE nodes SET text = ? WHERE id = ? AND text <> ?", (text, node_id, text))
        query = "UPDATE nodes SET status = ?, preview = ? WHERE id = ?"
        if conn.execute(query, (status, preview_of(text), node_id)).rowcount == 0:
            raise NodeNotFound(f"There is no node {short_id(node_id)}")
        if span is not None:
            write_spans(conn, [(node_id, span)])
        conn.execute("DELETE FROM partials WHERE node_id = ?", (node_id,))
        conn.execute("DELETE FROM streams WHERE node_id = ?", (node_id,))
        self._touch(self.conversation_of(node_id))

    def mark_interrupted(self) -> list[str]:
        """End the replies whose process died as `interrupted`, with all that was flushed; returns their ids.

        A reply that a living process writes is left alone, and so is one of another host for a day.
        """
        if not self._all("SELECT 1 FROM nodes WHERE status = 'streaming' LIMIT 1"):
            return []
        marked = []
        with self._writing() as conn:
            rows = conn.execute(
                "SELECT n.id, s.host, s.pid, s.started, s.flushed_at"
                " FROM nodes n LEFT JOIN streams s ON s.node_id = n.id WHERE n.status = 'streaming' ORDER BY n.seq"
            ).fetchall()
            for node_id, host, pid, started, flushed_at in rows:
                if host is None or is_abandoned(Owner(host, pid, started), flushed_at):
                    self._end(conn, node_id, "interrupted", *self._flushed(node_id))
                    marked.append(node_id)
        return marked

    def _require_free(self, node_id: str) -> None:
        row = self._one("SELECT host, pid, started, flushed_at FROM streams WHERE node_id = ?", (node_id,))
        if row is not None and Owner(*row[:3]) != this_process() and not is_abandoned(Owner(*row[:3]), row[3]):
            raise StoreError(
                f"Another treechat is writing {short_id(node_id)}", "Wait until it is done, or stop it there"
            )

    def _read_flushed(self, node_id: str) -> _Flushed:
        text, span = self._flushed(node_id)
        row = self._one("SELECT coalesce(max(seq) + 1, 0) FROM partials WHERE node_id = ?", (node_id,))
        return _Flushed(text, span, row[0] if row else 0)


def _own(conn: sqlite3.Connection, node_id: str, tokenizer: str | None) -> None:
    """Say that this process writes the reply, and that it lives now. `tokenizer` None leaves what was there."""
    conn.execute(
        "INSERT OR REPLACE INTO streams (node_id, host, pid, started, flushed_at, tokenizer)"
        " VALUES (?, ?, ?, ?, ?, coalesce(?, (SELECT tokenizer FROM streams WHERE node_id = ?)))",
        (node_id, *this_process(), time.time(), tokenizer, node_id),
    )


def _kept(last: _Flushed, text: str, span: Span) -> tuple[int, int]:
    """How many characters and ids of the last flush the new one begins with."""
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
