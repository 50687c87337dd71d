"""Search in the texts of nodes.

Words are looked up in an index (FTS5: whole words, the last one as a prefix, case and accents aside). What such an
index cannot find, a query without words such as `->` or one in a script that puts no spaces between words, is looked
for as plain pieces of text. A reply is found once it has ended.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice

from treechat.store.codec import clean
from treechat.store.connection import Row
from treechat.store.nodes import Nodes
from treechat.store.values import Hit

MAX_QUERY_CHARS = 1000
MAX_WORDS = 40
"""A whole page as a query is cut to these: SQLite refuses longer patterns and deeper expressions."""

SNIPPET_CHARS = 40
"""Characters kept on either side of a match."""

UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Thai, Lao, Burmese, Khmer, Chinese, Japanese and Korean: a word of theirs is rarely a token of the index."""


class Search(Nodes):
    """The part of the store that finds text."""

    def search(self, query: str, conversation_id: str | None = None, limit: int = 50) -> list[Hit]:
        """Visible nodes whose text has all words of `query`, best first; any text is a query, none an error.

        Words are quoted for the index, so its operators mean nothing here. An empty query finds nothing.
        """
        words = list(dict.fromkeys(clean(query)[:MAX_QUERY_CHARS].split()))[:MAX_WORDS]
        if not words or limit <= 0:
            return []
        plain = UNSPACED.search(" ".join(words)) or not all(any(c.isalnum() for c in word) for word in words)
        with self._reading():
            rows = self._plain_hits(words, conversation_id) if plain else self._indexed_hits(words, conversation_id)
            return list(islice(rows, limit))

    def _visible(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows (node id, conversation id, …) whose node is not hidden."""
        hidden: dict[str, set[str]] = {}
        for row in rows:
            if row[1] not in hidden:
                hidden[row[1]] = self._hidden_ids(row[1])
            if row[0] not in hidden[row[1]]:
                yield row

    def _indexed_hits(self, words: list[str], conversation_id: str | None) -> Iterator[Hit]:
        match = " ".join('"' + word.replace('"', '""') + '"' for word in words) + "*"
        sql = (
            "SELECT n.id, n.conversation_id, c.title, n.seq FROM nodes_fts f"
            " JOIN nodes n ON n.seq = f.rowid JOIN conversations c ON c.id = n.conversation_id"
            " WHERE nodes_fts MATCH ? AND NOT c.hidden AND (? IS NULL OR c.id = ?) ORDER BY f.rank, n.seq DESC"
        )
        rows = self._conn.execute(sql, (match, conversation_id, conversation_id))
        for node_id, found_in, title, seq in self._visible(rows):
            (text,) = self._conn.execute("SELECT text FROM nodes WHERE seq = ?", (seq,)).fetchone()
            yield Hit(node_id, found_in, title, _around(text, words))

    def _plain_hits(self, words: list[str], conversation_id: str | None) -> Iterator[Hit]:
        patterns = ["%" + re.sub(r"([\\%_])", r"\\\1", word) + "%" for word in words]
        likes = " AND ".join(["n.text LIKE ? ESCAPE '\\'"] * len(patterns))
        sql = (
            "SELECT n.id, n.conversation_id, c.title, n.text FROM nodes n JOIN conversations c"
            f" ON c.id = n.conversation_id WHERE {likes} AND NOT c.hidden"
            " AND (? IS NULL OR c.id = ?) ORDER BY n.seq DESC"
        )
        rows = self._conn.execute(sql, (*patterns, conversation_id, conversation_id))
        for node_id, found_in, title, text in self._visible(rows):
            yield Hit(node_id, found_in, title, _around(text, words))


def _around(text: str, words: list[str]) -> str:
    """One line of the text around the words: where they stand together, else where the first of them to be found is.

    FTS5's own snippets take time that grows with the square of the matches in a text.
    """
    lower = text.lower()
    for piece in (" ".join(words), *words):
        at = lower.find(piece.lower())
        if at >= 0:
            start, end = max(0, at - SNIPPET_CHARS), at + len(piece) + SNIPPET_CHARS
            break
    else:
        start, end = 0, 2 * SNIPPET_CHARS
    line = " ".join(text[start:end].split())
    return ("…" if start else "") + line + ("…" if end < len(text) else "")
