"""Search in the texts of nodes.

An FTS5 index finds words: whole words, the last one as a prefix, case and accents ignored. A scan finds the queries
that such an index cannot answer: symbols such as `->`, and scripts without spaces between words. A reply is found after
it has ended.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice

from treechat.store.codec import clean
from treechat.store.connection import Connection, SqlRow
from treechat.store.trees import hidden_ids
from treechat.store.values import Hit

MAX_QUERY_CHARS = 1000
MAX_WORDS = 40
"""Longer queries are cut to these: SQLite refuses longer patterns and deeper expressions."""

SNIPPET_CHARS = 40
"""Characters shown on each side of a match."""

UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Thai, Lao, Burmese, Khmer, Chinese, Japanese and Korean: their words are rarely tokens of the index."""


class Search(Connection):
    """Find text."""

    def search(self, query: str, conversation_id: str | None = None, limit: int = 50) -> list[Hit]:
        """Visible nodes whose text has all words of `query`, best first.

        query: any text; FTS5's operators are quoted, so no text is an error. Empty: no hits.
        conversation_id: search only this conversation; None for all.
        limit: the most hits to return.
        """
        words = list(dict.fromkeys(clean(query)[:MAX_QUERY_CHARS].split()))[:MAX_WORDS]
        if not words or limit <= 0:
            return []
        needs_scan = UNSPACED.search(" ".join(words)) or not all(any(c.isalnum() for c in word) for word in words)
        find = _scan if needs_scan else _look_up
        with self.reading() as conn:
            return list(islice(find(conn, words, conversation_id), limit))


def _visible(conn: sqlite3.Connection, rows: Iterable[SqlRow]) -> Iterator[SqlRow]:
    """The rows (node id, conversation id, …) whose node is visible."""
    hidden: dict[str, set[str]] = {}
    for row in rows:
        if row[1] not in hidden:
            hidden[row[1]] = hidden_ids(conn, row[1])
        if row[0] not in hidden[row[1]]:
            yield row


def _look_up(conn: sqlite3.Connection, words: list[str], conversation_id: str | None) -> Iterator[Hit]:
    """Hits in the index."""
    match = " ".join('"' + word.replace('"', '""') + '"' for word in words) + "*"
    sql = (
        "SELECT n.id, n.conversation_id, c.title, n.seq FROM nodes_fts f"
        " JOIN nodes n ON n.seq = f.rowid JOIN conversations c ON c.id = n.conversation_id"
        " WHERE nodes_fts MATCH ? AND NOT c.hidden AND (? IS NULL OR c.id = ?) ORDER BY f.rank, n.seq DESC"
    )
    rows = conn.execute(sql, (match, conversation_id, conversation_id))
    for node_id, found_in, title, seq in _visible(conn, rows):
        (text,) = conn.execute("SELECT text FROM nodes WHERE seq = ?", (seq,)).fetchone()
        yield Hit(node_id, found_in, title, _snippet(text, words))


def _scan(conn: sqlite3.Connection, words: list[str], conversation_id: str | None) -> Iterator[Hit]:
    """Hits of a scan through all texts."""
    patterns = ["%" + re.sub(r"([\\%_])", r"\\\1", word) + "%" for word in words]
    likes = " AND ".join(["n.text LIKE ? ESCAPE '\\'"] * len(patterns))
    sql = (
        "SELECT n.id, n.conversation_id, c.title, n.text FROM nodes n JOIN conversations c"
        f" ON c.id = n.conversation_id WHERE {likes} AND NOT c.hidden"
        " AND (? IS NULL OR c.id = ?) ORDER BY n.seq DESC"
    )
    rows = conn.execute(sql, (*patterns, conversation_id, conversation_id))
    for node_id, found_in, title, text in _visible(conn, rows):
        yield Hit(node_id, found_in, title, _snippet(text, words))


def _snippet(text: str, words: list[str]) -> str:
    """One line of the text around the adjacent words, or else around the first word that the text has.

    The time of FTS5's own snippets grows with the square of the number of matches in a text.
    """
    lower = text.lower()
    for phrase in (" ".join(words), *words):
        at = lower.find(phrase.lower())
        if at >= 0:
            start, end = max(0, at - SNIPPET_CHARS), at + len(phrase) + SNIPPET_CHARS
            break
    else:
        start, end = 0, 2 * SNIPPET_CHARS
    line = " ".join(text[start:end].split())
    return ("…" if start else "") + line + ("…" if end < len(text) else "")
