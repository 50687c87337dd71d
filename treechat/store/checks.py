"""Checks of the whole database: what `treechat doctor` asks."""

from __future__ import annotations

import sqlite3

from treechat.store.conversations import repaired_tree
from treechat.store.ids import short_id
from treechat.store.nodes import Nodes


class Checks(Nodes):
    """The part of the store that finds damage."""

    def verify(self) -> list[str]:
        """What is wrong, in words; empty where all is well. Reads everything, changes nothing."""
        with self._reading() as conn:
            problems = [row[0] for row in conn.execute("PRAGMA integrity_check") if row[0] != "ok"]
            if problems:
                # The rest would only stumble over the same damage.
                return problems
            for table, _, parent, _ in set(conn.execute("PRAGMA foreign_key_check").fetchall()):
                problems.append(f"a row of {table} refers to a row of {parent} that is gone")
            for conversation_id, title in conn.execute("SELECT id, title FROM conversations").fetchall():
                _, notes = repaired_tree(self._nodes(conversation_id))
                problems += [f"conversation {short_id(conversation_id)} ({title}): {note}" for note in notes]
            problems += self._bad_spans() + self._bad_index()
        return problems

    def _bad_spans(self) -> list[str]:
        rows = self._all(
            "SELECT node_id FROM spans WHERE length(ids) % 4 <> 0"
            " OR (logprobs IS NOT NULL AND length(logprobs) <> length(ids))"
        )
        return [f"the span of {short_id(node_id)} is damaged" for (node_id,) in rows]

    def _bad_index(self) -> list[str]:
        try:
            with self._lock:
                self._conn.execute("INSERT INTO nodes_fts (nodes_fts, rank) VALUES ('integrity-check', 1)")
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
                raise
            return ["the search index does not match the texts; it can be rebuilt"]
        return []

    def rebuild_search(self) -> None:
        """Build the search index again from the texts."""
        with self._writing() as conn:
            conn.execute("INSERT INTO nodes_fts (nodes_fts) VALUES ('rebuild')")
