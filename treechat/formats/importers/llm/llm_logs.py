"""Import the logs.db of `llm`: one row per response, and since 0.32 also a tree of messages by hash.

A conversation in both is read from the tree, which has its branches. The file is never changed.
"""

from __future__ import annotations

from collections.abc import Iterator

from treechat.errors import FormatError
from treechat.formats.document import Document, ImportReport
from treechat.formats.importers.importer import Importer
from treechat.formats.importers.llm.message_tree import read_tree
from treechat.formats.importers.llm.responses import read_responses
from treechat.formats.reading.inputs import Input
from treechat.formats.reading.sqlite_source import SqliteSource, open_sqlite


def recognises_database(source: SqliteSource) -> bool:
    """Return whether the database is llm's, of either generation."""
    return _has_responses(source) or _has_tree(source)


def _has_responses(source: SqliteSource) -> bool:
    return source.has("responses", "id", "prompt", "response")


def _has_tree(source: SqliteSource) -> bool:
    return source.has("messages", "hash", "parent_hash", "role")


def read(file: Input, report: ImportReport) -> Iterator[Document]:
    """Yield the conversations of a file. Raises OSError and FormatError."""
    with open_sqlite(file) as source:
        if not recognises_database(source):
            raise FormatError(f"{file.name} is a database, but not llm's", "`llm logs path` prints its path")
        tree_thread_ids: set[str] = set()
        if _has_tree(source):
            yield from read_tree(source, tree_thread_ids, file, report)
        if _has_responses(source):
            yield from read_responses(source, tree_thread_ids, file, report)


IMPORTER = Importer("llm", "llm's logs.db", lambda _: False, read, recognises_database)
