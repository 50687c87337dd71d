"""Imports that write in several transactions: their rows are hidden until the import finishes.

A new conversation is hidden as a whole. Nodes added to a visible conversation are hidden one by one. The rows of an
abandoned import are removed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from treechat.store.codec import clean
from treechat.store.connection import Connection, SqlRow
from treechat.store.conversations import UNFINISHED
from treechat.store.owner import Owner, is_abandoned, this_process

PORTION = 2_000
"""Nodes removed per transaction: it takes 0.1 s, in which no other window can write."""

IS_UNFINISHED = (
    f"(hidden = {UNFINISHED} OR EXISTS (SELECT 1 FROM conversations c"
    f" WHERE c.id = nodes.conversation_id AND c.hidden = {UNFINISHED}))"
)
"""SQL: true for the nodes of a conversation that an unfinished import wrote."""


_running: set[str] = set()
"""Running imports of this process. A failed import whose rows could not be removed is not among them."""


class Imports(Connection):
    """Record, finish and remove imports. import_id: identifies one import in all rows that it writes."""

    def begin_import(self, conversation_id: str, import_id: str) -> None:
        """Record that this process writes the conversation, and the time."""
        _running.add(import_id)
        with self.transaction() as conn:
            conn.execute(
                "INSERT OR REPLACE INTO imports (conversation_id, run, host, pid, started, written_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (conversation_id, import_id, *this_process(), time.time()),
            )

    def is_written_elsewhere(self, conversation_id: str, import_id: str) -> bool:
        """Whether another import has begun the conversation and not finished it."""
        query = "SELECT 1 FROM imports WHERE conversation_id = ? AND run <> ?"
        return self.row(query, (conversation_id, import_id)) is not None

    def unfinished(self, source: str, source_id: str) -> str | None:
        """The id of the new conversation that an import is writing from that source; None if there is none."""
        query = "SELECT id FROM conversations WHERE source = ? AND source_id = ? AND hidden = ?"
        row = self.row(query, (clean(source), clean(source_id), UNFINISHED))
        return None if row is None else str(row[0])

    def finish_import(self, import_id: str, conversation_id: str | None = None) -> None:
        """Make the rows of the import visible.

        conversation_id: only those of this conversation; None for all.
        """
        of_run = "SELECT conversation_id FROM imports WHERE run = ?1 AND (?2 IS NULL OR conversation_id = ?2)"
        with self.transaction() as conn:
            for query in (
                f"UPDATE nodes SET hidden = 0 WHERE conversation_id IN ({of_run}) AND hidden = {UNFINISHED}",
                f"UPDATE conversations SET hidden = 0 WHERE id IN ({of_run}) AND hidden = {UNFINISHED}",
                f"DELETE FROM imports WHERE conversation_id IN ({of_run})",
            ):
                conn.execute(query, (import_id, conversation_id))
        if conversation_id is None:
            _running.discard(import_id)

    def drop_import(
        self, import_id: str, deadline: float | None = None, after_portion: Callable[[], None] | None = None
    ) -> int:
        """Remove the unfinished rows of the import in portions; returns the number of nodes removed.

        import_id: the import.
        deadline: on `time.monotonic`; after it the rest stays for the next call. None: no limit.
        after_portion: called after each portion.
        """
        _running.discard(import_id)
        query = (
            "SELECT nodes.seq FROM imports JOIN nodes ON nodes.conversation_id = imports.conversation_id"
            f" WHERE imports.run = ? AND {IS_UNFINISHED.replace('(hidden', '(nodes.hidden', 1)} ORDER BY nodes.seq"
        )
        seqs: list[SqlRow] = self.rows(query, (import_id,))
        # Check each node again: another window may have removed it, and SQLite then reuses its number.
        query = (
            f"DELETE FROM nodes WHERE seq = ? AND {IS_UNFINISHED}"
            " AND conversation_id IN (SELECT conversation_id FROM imports WHERE run = ?)"
        )
        num = 0
        while seqs:
            # From the end, so that a node is removed before its parent.
            portion = [(seq, import_id) for (seq,) in seqs[-PORTION:]]
            del seqs[-PORTION:]
            with self.transaction() as conn:
                num += conn.executemany(query, reversed(portion)).rowcount
            if after_portion is not None:
                after_portion()
            if deadline is not None and time.monotonic() >= deadline:
                return num
        with self.transaction() as conn:
            of_run = "SELECT conversation_id FROM imports WHERE run = ?"
            conn.execute(f"DELETE FROM conversations WHERE id IN ({of_run}) AND hidden = {UNFINISHED}", (import_id,))
            conn.execute("DELETE FROM imports WHERE run = ?", (import_id,))
        return num

    def drop_dead_imports(self, limit_s: float | None = None, after_portion: Callable[[], None] | None = None) -> int:
        """`drop_import` for each import of a dead process; one of another host counts as dead after a day.

        limit_s: after this time the rest stays for the next call; None: no limit.
        after_portion: called after each portion.
        """
        rows = self.rows("SELECT run, host, pid, started, max(written_at) FROM imports GROUP BY run")
        deadline = None if limit_s is None else time.monotonic() + limit_s
        return sum(self.drop_import(row[0], deadline, after_portion) for row in rows if _is_dead(*row))


def _is_dead(import_id: str, host: str, pid: int, started: str, written_at: float) -> bool:
    owner = Owner(host, pid, started)
    return import_id not in _running if owner == this_process() else is_abandoned(owner, written_at)
