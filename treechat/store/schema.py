"""The tables and their migrations. A released migration never changes.

Texts are the last columns, so that reading the structure does not read the overflow pages of long texts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

APPLICATION_ID = 0x74726565
""""tree" in the file's header: distinguishes our files from SQLite databases of other programs."""

MIGRATION_SET = "treechat"

V001 = (
    f"PRAGMA application_id = {APPLICATION_ID}",
    """
    CREATE TABLE conversations (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        title TEXT NOT NULL DEFAULT '',
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        current_id TEXT,
        hidden INTEGER NOT NULL DEFAULT 0,
        source TEXT,
        source_id TEXT,
        meta TEXT NOT NULL DEFAULT '{}'
    )
    """,
    "CREATE INDEX conversations_updated ON conversations(updated_at)",
    "CREATE INDEX conversations_source ON conversations(source, source_id) WHERE source_id IS NOT NULL",
    """
    CREATE TABLE nodes (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        conversation_id TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
        parent_id TEXT,
        role TEXT NOT NULL CHECK (role IN ('system', 'user', 'assistant')),
        status TEXT NOT NULL DEFAULT 'complete'
            CHECK (status IN ('complete', 'streaming', 'stopped', 'interrupted', 'failed')),
        created_at REAL NOT NULL,
        label TEXT,
        bookmarked INTEGER NOT NULL DEFAULT 0,
        hidden INTEGER NOT NULL DEFAULT 0,
        preview TEXT NOT NULL DEFAULT '',
        meta TEXT NOT NULL DEFAULT '{}',
        text TEXT NOT NULL DEFAULT '',
        UNIQUE (conversation_id, id),
        FOREIGN KEY (conversation_id, parent_id) REFERENCES nodes(conversation_id, id)
            DEFERRABLE INITIALLY DEFERRED
    )
    """,
    "CREATE INDEX nodes_children ON nodes(conversation_id, parent_id, hidden)",
    "CREATE INDEX nodes_label ON nodes(label) WHERE label IS NOT NULL",
    "CREATE INDEX nodes_hidden ON nodes(conversation_id) WHERE hidden",
    "CREATE INDEX nodes_streaming ON nodes(id) WHERE status = 'streaming'",
    """
    CREATE TABLE turns (
        node_id TEXT PRIMARY KEY REFERENCES nodes(id) ON DELETE CASCADE,
        model TEXT NOT NULL,
        sampling TEXT NOT NULL DEFAULT '{}',
        seed TEXT,
        finish_reason TEXT,
        prompt_tokens INTEGER,
        cached_tokens INTEGER,
        restored_tokens INTEGER,
        computed_tokens INTEGER,
        completion_tokens INTEGER,
        queue_s REAL,
        ttft_s REAL,
        total_s REAL
    )
    """,
    """
    CREATE TABLE spans (
        node_id TEXT NOT NULL REFERENCES nodes(id) ON DELETE CASCADE,
        tokenizer TEXT NOT NULL,
        ids BLOB NOT NULL,
        logprobs BLOB,
        PRIMARY KEY (node_id, tokenizer)
    )
    """,
    """
    CREATE TABLE streams (
        node_id TEXT PRIMARY KEY REFERENCES nodes(id) ON DELETE CASCADE,
        host TEXT NOT NULL,
        pid INTEGER NOT NULL,
        started TEXT NOT NULL,
        flushed_at REAL NOT NULL,
        tokenizer TEXT
    )
    """,
    """
    CREATE TABLE partials (
        node_id TEXT NOT NULL REFERENCES nodes(id) ON DELETE CASCADE,
        seq INTEGER NOT NULL,
        keep_chars INTEGER NOT NULL,
        text TEXT NOT NULL,
        keep_ids INTEGER NOT NULL,
        ids BLOB NOT NULL,
        logprobs BLOB,
        PRIMARY KEY (node_id, seq)
    )
    """,
    """
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        conversation_id TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
        kind TEXT NOT NULL,
        node_id TEXT,
        before TEXT NOT NULL,
        after TEXT NOT NULL,
        created_at REAL NOT NULL,
        undone INTEGER
    )
    """,
    "CREATE INDEX events_conversation ON events(conversation_id)",
    """
    CREATE VIRTUAL TABLE nodes_fts USING fts5(
        text, content='nodes', content_rowid='seq', tokenize='unicode61 remove_diacritics 2'
    )
    """,
    """
    CREATE TRIGGER nodes_fts_insert AFTER INSERT ON nodes BEGIN
        INSERT INTO nodes_fts(rowid, text) VALUES (new.seq, new.text);
    END
    """,
    """
    CREATE TRIGGER nodes_fts_delete AFTER DELETE ON nodes BEGIN
        INSERT INTO nodes_fts(nodes_fts, rowid, text) VALUES ('delete', old.seq, old.text);
    END
    """,
    """
    CREATE TRIGGER nodes_fts_update AFTER UPDATE OF text ON nodes BEGIN
        INSERT INTO nodes_fts(nodes_fts, rowid, text) VALUES ('delete', old.seq, old.text);
        INSERT INTO nodes_fts(rowid, text) VALUES (new.seq, new.text);
    END
    """,
    # ORDER BY in the recursive part makes the walk depth first, with siblings in order of creation. Without LIMIT,
    # SQLite drops this order as useless for the outer join. Without CROSS JOIN it may reverse the join.
    """
    CREATE VIEW tree AS
    WITH RECURSIVE walk(conversation, depth, seq, id) AS (
        SELECT c.seq, 0, n.seq, n.id FROM nodes n JOIN conversations c ON c.id = n.conversation_id
        WHERE n.parent_id IS NULL AND NOT n.hidden AND NOT c.hidden
        UNION ALL
        SELECT w.conversation, w.depth + 1, n.seq, n.id
        FROM walk w JOIN nodes p ON p.id = w.id
        JOIN nodes n ON n.conversation_id = p.conversation_id AND n.parent_id = p.id
        WHERE NOT n.hidden
        ORDER BY 1, 2 DESC, 3 LIMIT -1
    )
    SELECT c.title AS conversation, w.depth AS depth, substr(n.id, 1, 8) AS node,
           printf('%*s%s: %s', 2 * min(w.depth, 40), '', n.role, n.preview) AS line,
           n.status AS status, n.label AS label, datetime(n.created_at, 'unixepoch') AS created,
           n.id AS id, n.conversation_id AS conversation_id
    FROM walk w CROSS JOIN nodes n ON n.id = w.id CROSS JOIN conversations c ON c.id = n.conversation_id
    """,
)

V002 = (
    """
    CREATE TABLE imports (
        conversation_id TEXT PRIMARY KEY REFERENCES conversations(id) ON DELETE CASCADE,
        run TEXT NOT NULL,
        host TEXT NOT NULL,
        pid INTEGER NOT NULL,
        started TEXT NOT NULL,
        written_at REAL NOT NULL
    )
    """,
    # Unfinished imports of versions that did not record the importing process.
    "INSERT INTO imports SELECT id, 'before 002', '', 0, '', 0 FROM conversations WHERE hidden = 2",
)


MIGRATIONS: dict[str, Sequence[str]] = {"001_start": V001, "002_imports": V002}
"""Statements by name of the migration, oldest first."""


def applied_migrations(conn: sqlite3.Connection) -> list[str]:
    """Names of the migrations applied to the file; empty for a new file."""
    if not conn.execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone():
        return []
    query = "SELECT name FROM _sqlite_migrations WHERE migration_set = ? ORDER BY rowid"
    return [name for (name,) in conn.execute(query, (MIGRATION_SET,))]


def migrate(conn: sqlite3.Connection) -> None:
    """Apply the pending migrations in one transaction. If two processes do this at once, the second waits."""
    # Import here: sqlite_utils imports numpy, 0.25 s that opening an up-to-date file does not need.
    from sqlite_utils import Database, Migrations

    migrations = Migrations(MIGRATION_SET)
    for name, statements in MIGRATIONS.items():
        migrations(name=name)(_runner(statements))
    conn.execute("BEGIN IMMEDIATE")
    try:
        migrations.apply(Database(conn, execute_plugins=False))
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


def _runner(statements: Sequence[str]) -> Callable[[Any], None]:
    def run(db: Any) -> None:
        # One statement at a time: `executescript` would commit the open transaction.
        for statement in statements:
            db.conn.execute(statement)

    return run
