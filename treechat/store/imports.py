"""Imports in the making: what one writes in several transactions is out of sight until all of it is there.

A new conversation is hidden as a whole meanwhile; what comes to one that is in sight is hidden node by node. What an
import left behind that nobody goes on with is removed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from treechat.store.codec import clean
from treechat.store.connection import Row
from treechat.store.conversations import UNFINISHED
from treechat.store.nodes import Nodes
from treechat.store.owner import Owner, is_abandoned, this_process

PORTION = 2_000
"""Nodes that are removed at once: 0.1 s in which no other window can write."""

IN_THE_MAKING = (
    f"(hidden = {UNFINISHED} OR EXISTS (SELECT 1 FROM conversations c"
    f" WHERE c.id = nodes.conversation_id AND c.hidden = {UNFINISHED}))"
)
"""What holds for a node of a conversation under import that the import wrote."""


_living: set[str] = set()
"""Runs of this process that go on: it outlives an import that failed, and that could not be removed then."""


class Imports(Nodes):
    """The part of the store that knows imports. run: what an import calls itself, alike in all that it writes."""

    def begin_import(self, conversation_id: str, run: str) -> None:
        """Say that this process writes the conversation, and that it lives now."""
        _living.add(run)
        with self._writing() as conn:
            conn.execute(
                "INSERT OR REPLACE INTO imports (conversation_id, run, host, pid, started, written_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (conversation_id, run, *this_process(), time.time()),
            )

    def is_written_elsewhere(self, conversation_id: str, run: str) -> bool:
        """Whether another import than `run` began the conversation, and did not finish it."""
        query = "SELECT 1 FROM imports WHERE conversation_id = ? AND run <> ?"
        return self._one(query, (conversation_id, run)) is not None

    def unfinished(self, source: str, source_id: str) -> str | None:
        """The id of the new conversation from there that an import is writing; None where there is none."""
        query = "SELECT id FROM conversations WHERE source = ? AND source_id = ? AND hidden = ?"
        row = self._one(query, (clean(source), clean(source_id), UNFINISHED))
        return None if row is None else str(row[0])

    def finish_import(self, run: str, conversation_id: str | None = None) -> None:
        """What the import wrote is whole, and comes into sight: all, or one conversation of several."""
        of_run = "SELECT conversation_id FROM imports WHERE run = ?1 AND (?2 IS NULL OR conversation_id = ?2)"
        with self._writing() as conn:
            for query in (
                f"UPDATE nodes SET hidden = 0 WHERE conversation_id IN ({of_run}) AND hidden = {UNFINISHED}",
                f"UPDATE conversations SET hidden = 0 WHERE id IN ({of_run}) AND hidden = {UNFINISHED}",
                f"DELETE FROM imports WHERE conversation_id IN ({of_run})",
            ):
                conn.execute(query, (run, conversation_id))
        if conversation_id is None:
            _living.discard(run)

    def drop_import(self, run: str, until: float | None = None, between: Callable[[], None] | None = None) -> int:
        """Remove what the import wrote and did not finish, in portions; returns how many nodes went.

        until: by `time.monotonic`, when to leave the rest to the next one. between: called between the portions.
        """
        _living.discard(run)
        query = (
            "SELECT nodes.seq FROM imports JOIN nodes ON nodes.conversation_id = imports.conversation_id"
            f" WHERE imports.run = ? AND {IN_THE_MAKING.replace('(hidden', '(nodes.hidden', 1)} ORDER BY nodes.seq"
        )
        seqs: list[Row] = self._all(query, (run,))
        # Asked again for each: a number is given anew when its node is gone, which another window may have seen to.
        query = (
            f"DELETE FROM nodes WHERE seq = ? AND {IN_THE_MAKING}"
            " AND conversation_id IN (SELECT conversation_id FROM imports WHERE run = ?)"
        )
        num = 0
        while seqs:
            # From the end: a node goes before the one above it.
            portion = [(seq, run) for (seq,) in seqs[-PORTION:]]
            del seqs[-PORTION:]
            with self._writing() as conn:
                num += conn.executemany(query, reversed(portion)).rowcount
            if between is not None:
                between()
            if until is not None and time.monotonic() >= until:
                return num
        with self._writing() as conn:
            of_run = "SELECT conversation_id FROM imports WHERE run = ?"
            conn.execute(f"DELETE FROM conversations WHERE id IN ({of_run}) AND hidden = {UNFINISHED}", (run,))
            conn.execute("DELETE FROM imports WHERE run = ?", (run,))
        return num

    def drop_dead_imports(self, limit_s: float | None = None, between: Callable[[], None] | None = None) -> int:
        """`drop_import` of all whose process died; one of another host counts as dead after a day.

        limit_s: after which the rest is left to the next call.
        """
        rows = self._all("SELECT run, host, pid, started, max(written_at) FROM imports GROUP BY run")
        until = None if limit_s is None else time.monotonic() + limit_s
        return sum(self.drop_import(row[0], until, between) for row in rows if _is_dead(*row))


def _is_dead(run: str, host: str, pid: int, started: str, written_at: float) -> bool:
    owner = Owner(host, pid, started)
    return run not in _living if owner == this_process() else is_abandoned(owner, written_at)
