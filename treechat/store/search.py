"""Search in the texts of nodes.

Words are looked up in an index (FTS5: whole words, the last one as a prefix, case and accents aside). What such an
index cannot find, a query without words such as `->` or one in a script that puts no spaces between words, is looked
for as a plain piece of text. A reply is found once it has ended.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from treechat.store.codec import clean
from treechat.store.connection import Row
from treechat.store.nodes import Nodes
from treechat.store.values import Hit

SNIPPET_TOKENS = 16
SNIPPET_CHARS = 40
"""Characters kept on either side of a plain match."""

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
        query = clean(query).strip()
        if not query or limit <= 0:
            return []
        words = query.split()
        plain = UNSPACED.search(query) or not all(any(c.isalnum() for c in word) for word in words)
        hits: list[Hit] = []
        hidden: dict[str, set[str]] = {}
        with self._reading():
            for row in (
                self._plain_rows(query, conversation_id) if plain else self._indexed_rows(words, conversation_id)
            ):
                node_id, conversation, title, snippet = row
                if conversation not in hidden:
                    hidden[conversation] = self._hidden_ids(conversation)
                if node_id not in hidden[conversation]:
                    hits.append(Hit(node_id, conversation, title, " ".join(snippet.split())))
                    if len(hits) == limit:
                        break
        return hits

    def _indexed_rows(self, words: list[str], conversation_id: str | None) -> Iterator[Row]:
        quoted = ['"' + word.replace('"', '""') + '"' for word in words]
        sql = (
            f"SELECT n.id, n.conversation_id, c.title, snippet(nodes_fts, 0, '', '', '…', {SNIPPET_TOKENS})"
            " FROM nodes_fts f JOIN nodes n ON n.seq = f.rowid JOIN conversations c ON c.id = n.conversation_id"
            " WHERE nodes_fts MATCH ? AND NOT c.hidden AND (? IS NULL OR c.id = ?) ORDER BY f.rank, n.seq DESC"
        )
        yield from self._conn.execute(sql, (" ".join(quoted) + "*", conversation_id, conversation_id))

    def _plain_rows(self, query: str, conversation_id: str | None) -> Iterator[Row]:
        escaped = re.sub(r"([\\%_])", r"\\\1", query)
        sql = (
            "SELECT n.id, n.conversation_id, c.title, n.text FROM nodes n JOIN conversations c"
            " ON c.id = n.conversation_id WHERE n.text LIKE ? ESCAPE '\\' AND NOT c.hidden"
            " AND (? IS NULL OR c.id = ?) ORDER BY n.seq DESC"
        )
        for *identity, text in self._conn.execute(sql, (f"%{escaped}%", conversation_id, conversation_id)):
            yield (*identity, _around(text, query))


def _around(text: str, query: str) -> str:
    """The piece of text around its first match."""
    at = max(0, text.lower().find(query.lower()))
    start, end = max(0, at - SNIPPET_CHARS), at + len(query) + SNIPPET_CHARS
    return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")
