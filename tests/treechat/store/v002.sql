-- What version 2 wrote: its schema and a few rows. Never changed; later versions must open it.
PRAGMA application_id = 1953654117;
PRAGMA foreign_keys = OFF;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
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
    );
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
    );
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
    );
CREATE TABLE spans (
        node_id TEXT NOT NULL REFERENCES nodes(id) ON DELETE CASCADE,
        tokenizer TEXT NOT NULL,
        ids BLOB NOT NULL,
        logprobs BLOB,
        PRIMARY KEY (node_id, tokenizer)
    );
CREATE TABLE streams (
        node_id TEXT PRIMARY KEY REFERENCES nodes(id) ON DELETE CASCADE,
        host TEXT NOT NULL,
        pid INTEGER NOT NULL,
        started TEXT NOT NULL,
        flushed_at REAL NOT NULL,
        tokenizer TEXT
    );
CREATE TABLE partials (
        node_id TEXT NOT NULL REFERENCES nodes(id) ON DELETE CASCADE,
        seq INTEGER NOT NULL,
        keep_chars INTEGER NOT NULL,
        text TEXT NOT NULL,
        keep_ids INTEGER NOT NULL,
        ids BLOB NOT NULL,
        logprobs BLOB,
        PRIMARY KEY (node_id, seq)
    );
CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        conversation_id TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
        kind TEXT NOT NULL,
        node_id TEXT,
        before TEXT NOT NULL,
        after TEXT NOT NULL,
        created_at REAL NOT NULL,
        undone INTEGER
    );
CREATE VIRTUAL TABLE nodes_fts USING fts5(
        text, content='nodes', content_rowid='seq', tokenize='unicode61 remove_diacritics 2'
    );
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX conversations_updated ON conversations(updated_at);
CREATE INDEX conversations_source ON conversations(source, source_id) WHERE source_id IS NOT NULL;
CREATE INDEX nodes_children ON nodes(conversation_id, parent_id, hidden);
CREATE INDEX nodes_label ON nodes(label) WHERE label IS NOT NULL;
CREATE INDEX nodes_hidden ON nodes(conversation_id) WHERE hidden;
CREATE INDEX nodes_streaming ON nodes(id) WHERE status = 'streaming';
CREATE TABLE imports (
        conversation_id TEXT PRIMARY KEY REFERENCES conversations(id) ON DELETE CASCADE,
        run TEXT NOT NULL,
        host TEXT NOT NULL,
        pid INTEGER NOT NULL,
        started TEXT NOT NULL,
        written_at REAL NOT NULL
    );
CREATE INDEX events_conversation ON events(conversation_id);
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
    FROM walk w CROSS JOIN nodes n ON n.id = w.id CROSS JOIN conversations c ON c.id = n.conversation_id;
CREATE TRIGGER nodes_fts_insert AFTER INSERT ON nodes BEGIN
        INSERT INTO nodes_fts(rowid, text) VALUES (new.seq, new.text);
    END;
CREATE TRIGGER nodes_fts_delete AFTER DELETE ON nodes BEGIN
        INSERT INTO nodes_fts(nodes_fts, rowid, text) VALUES ('delete', old.seq, old.text);
    END;
CREATE TRIGGER nodes_fts_update AFTER UPDATE OF text ON nodes BEGIN
        INSERT INTO nodes_fts(nodes_fts, rowid, text) VALUES ('delete', old.seq, old.text);
        INSERT INTO nodes_fts(rowid, text) VALUES (new.seq, new.text);
    END;
INSERT INTO _sqlite_migrations (id, migration_set, name, applied_at)
    VALUES (1, 'treechat', '001_start', '2026-01-01 00:00:00+00:00'),
           (2, 'treechat', '002_imports', '2026-01-01 00:00:00+00:00');
INSERT INTO conversations (seq, id, title, created_at, updated_at, current_id, hidden, source, source_id, meta)
    VALUES (1, 'conv0001conv0001', 'From version 1', 1700000000.0, 1700000003.0, NULL, 0, 'chatgpt', 'abc', '{"template":"chatml"}');
INSERT INTO nodes (seq, id, conversation_id, parent_id, role, status, created_at, label, bookmarked, hidden, preview, meta, text)
    VALUES (1, 'node0001node0001', 'conv0001conv0001', NULL, 'system', 'complete', 1700000001.0, NULL, 0, 0, 'You are a careful helper.', '{}', 'You are a careful helper.');
INSERT INTO nodes (seq, id, conversation_id, parent_id, role, status, created_at, label, bookmarked, hidden, preview, meta, text)
    VALUES (2, 'node0002node0002', 'conv0001conv0001', 'node0001node0001', 'user', 'complete', 1700000001.0, NULL, 0, 0, 'Which tree bears acorns?', '{}', 'Which tree bears acorns?');
INSERT INTO nodes (seq, id, conversation_id, parent_id, role, status, created_at, label, bookmarked, hidden, preview, meta, text)
    VALUES (3, 'node0003node0003', 'conv0001conv0001', 'node0002node0002', 'assistant', 'complete', 1700000001.0, NULL, 0, 0, 'The oak.', '{}', 'The oak.');
INSERT INTO nodes (seq, id, conversation_id, parent_id, role, status, created_at, label, bookmarked, hidden, preview, meta, text)
    VALUES (4, 'node0004node0004', 'conv0001conv0001', 'node0002node0002', 'assistant', 'complete', 1700000001.0, 'second', 0, 1, 'Oaks do.', '{}', 'Oaks do.');
INSERT INTO nodes (seq, id, conversation_id, parent_id, role, status, created_at, label, bookmarked, hidden, preview, meta, text)
    VALUES (5, 'node0005node0005', 'conv0001conv0001', 'node0003node0003', 'assistant', 'streaming', 1700000001.0, NULL, 0, 0, 'Half a reply', '{}', '');
INSERT INTO turns (node_id, model, sampling, seed, finish_reason, prompt_tokens, cached_tokens, restored_tokens, computed_tokens, completion_tokens, queue_s, ttft_s, total_s)
    VALUES ('node0003node0003', 'model', '{"temperature":0.5}', '7', 'stop', NULL, NULL, NULL, NULL, 2, NULL, NULL, NULL);
INSERT INTO turns (node_id, model, sampling, seed, finish_reason, prompt_tokens, cached_tokens, restored_tokens, computed_tokens, completion_tokens, queue_s, ttft_s, total_s)
    VALUES ('node0005node0005', 'model', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO spans (node_id, tokenizer, ids, logprobs)
    VALUES ('node0001node0001', 'tok', X'010000000200000003000000', NULL);
INSERT INTO spans (node_id, tokenizer, ids, logprobs)
    VALUES ('node0002node0002', 'tok', X'04000000050000000600000007000000', NULL);
INSERT INTO spans (node_id, tokenizer, ids, logprobs)
    VALUES ('node0003node0003', 'tok', X'0800000009000000', X'000000BF000080BE');
INSERT INTO streams (node_id, host, pid, started, flushed_at, tokenizer)
    VALUES ('node0005node0005', 'elsewhere', 1, 'x', 1700000002.0, 'tok');
INSERT INTO partials (node_id, seq, keep_chars, text, keep_ids, ids, logprobs)
    VALUES ('node0005node0005', 0, 0, 'Half a', 0, X'0A0000000B000000', X'000080BF000080BF');
INSERT INTO partials (node_id, seq, keep_chars, text, keep_ids, ids, logprobs)
    VALUES ('node0005node0005', 1, 6, ' reply', 2, X'0C000000', X'000000C0');
INSERT INTO events (id, conversation_id, kind, node_id, before, after, created_at, undone)
    VALUES (1, 'conv0001conv0001', 'hide', 'node0004node0004', 'false', 'true', 1700000003.0, NULL);
INSERT INTO conversations (seq, id, title, created_at, updated_at, current_id, hidden, source, source_id, meta)
    VALUES (2, 'conv0002conv0002', 'Half an import', 1700000000.0, 1700000003.0, NULL, 2, 'chatgpt', 'half', '{}');
INSERT INTO nodes (seq, id, conversation_id, parent_id, role, status, created_at, label, bookmarked, hidden, preview, meta, text)
    VALUES (6, 'node0006node0006', 'conv0002conv0002', NULL, 'user', 'complete', 1700000001.0, NULL, 0, 0, 'Half', '{}', 'Half');
INSERT INTO nodes (seq, id, conversation_id, parent_id, role, status, created_at, label, bookmarked, hidden, preview, meta, text)
    VALUES (7, 'node0007node0007', 'conv0001conv0001', 'node0001node0001', 'user', 'complete', 1700000001.0, NULL, 0, 2, 'Half', '{}', 'Half');
INSERT INTO imports (conversation_id, run, host, pid, started, written_at)
    VALUES ('conv0002conv0002', 'run', 'elsewhere', 1, 'x', 1700000002.0),
           ('conv0001conv0001', 'run', 'elsewhere', 1, 'x', 1700000002.0);
