"""Checks of the whole database, for `treechat doctor`."""

from __future__ import annotations

import sqlite3

from treechat.store.connection import Connection
from treechat.store.trees import read_nodes, repaired_tree
from treechat.store.values import short_id


class Checks(Connection):
    """Find damage."""

    def verify(self) -> list[str]:
        """The faults of the database, in words; empty if there are none. Reads all rows and changes none."""
        with self.reading() as conn:
            problems = [row[0] for row in conn.execute("PRAGMA integrity_check") if row[0] != "ok"]
            if problems:
                # The other checks would fail on the same damage.
                return problems
            for table, _, parent, _ in set(conn.execute("PRAGMA foreign_key_check").fetchall()):
                problems.append(f"a row of {table} refers to a row of {parent} that is gone")
            for conversation_id, title in conn.execute("SELECT id, title FROM conversations").fetchall():
                _, notes = repaired_tree(read_nodes(conn, conversation_id))
                problems += [f"conversation {short_id(conversation_id)} ({title}): {note}" for note in notes]
            problems += _bad_spans(conn) + _bad_index(conn)
        return problems

    def rebuild_search(self) -> None:
        """Rebuild the search index from the texts."""
        with self.transaction() as conn:
            conn.execute("INSERT INTO nodes_fts (nodes_fts) VALUES ('rebuild')")


def _bad_spans(conn: sqlite3.Connection) -> list[str]:
    rows = conn.execute(
        "SELECT node_id FROM spans WHERE length(ids) % 4 <> 0"
        " OR (logprobs IS NOT NULL AND length(logprobs) <> length(ids))"
    ).fetchall()
    return [f"the span of {short_id(node_id)} is damaged" for (node_id,) in rows]


def _bad_index(conn: sqlite3.Connection) -> list[str]:
    try:
        conn.execute("INSERT INTO nodes_fts (nodes_fts, rank) VALUES ('integrity-check', 1)")
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
            raise
        return ["the search index does not match the texts; it can be rebuilt"]
    return []
