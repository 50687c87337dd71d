"""The logs.db of `llm`: a row per response, and since 0.32 a tree of messages by hash beside it. Only read.

A conversation that is in both is read from the tree, which has its branches.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

from treechat.errors import FormatError
from treechat.formats.document import Document, ImportReport
from treechat.formats.importer import Importer
from treechat.formats.inputs import Input
from treechat.formats.llm_responses import read_responses
from treechat.formats.llm_tree import read_tree
from treechat.formats.records import MAX_RECORD_BYTES
from treechat.formats.sqlite_source import SqliteSource


def read(file: Input, report: ImportReport) -> Iterator[Document]:
    if file.path is None or not file.is_sqlite:
        raise FormatError(f"{file.name} is not an SQLite file on disk", "Unpack it, and import the file itself")
    # Where nothing waits to be written, SQLite needs no files of its own beside the database.
    mode = "mode=ro" if file.path.with_name(f"{file.path.name}-wal").exists() else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"{file.path.resolve().as_uri()}?{mode}", uri=True)) as conn:
            conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_RECORD_BYTES)
            conn.execute("PRAGMA trusted_schema = OFF")
            conn.text_factory = lambda raw: raw.decode("utf-8", errors="replace")
            source = SqliteSource(conn)
            if not source.has("responses", "id", "prompt", "response") and not source.has("messages", "hash"):
                raise FormatError(f"{file.name} is a database, but not llm's", "`llm logs path` says where that is")
            in_tree: set[str] = set()
            if source.has("messages", "hash", "parent_hash", "role"):
                yield from read_tree(source, in_tree, file, report)
            if source.has("responses", "id", "prompt", "response"):
                yield from read_responses(source, in_tree, file, report)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        # SQLite's own messages quote a damaged schema, whose bytes may be no text.
        raise FormatError(f"{file.name} cannot be read ({error})", "It may be damaged, or not be a database") from error


IMPORTER = Importer("llm", "llm's logs.db", lambda _: False, read, is_sqlite=True)
