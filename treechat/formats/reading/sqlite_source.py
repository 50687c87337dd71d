"""Read a foreign SQLite file, in which tables and columns may be missing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from treechat.errors import FormatError
from treechat.formats.reading.inputs import Input
from treechat.formats.reading.records import MAX_RECORD_BYTES

BATCH_SIZE = 500


@contextmanager
def open_sqlite(file: Input) -> Iterator[SqliteSource]:
    """Open a database read-only. Raises FormatError if it is damaged or not a database, also while it is read."""
    if not file.is_sqlite:
        raise FormatError(f"{file.name} is not an SQLite file")
    with file.on_disk() as path:
        # Without a write-ahead log, `immutable` keeps SQLite from creating files next to the database.
        mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
        try:
            with closing(sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True)) as conn:
                conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_RECORD_BYTES)
                conn.execute("PRAGMA trusted_schema = OFF")
                conn.text_factory = lambda raw: raw.decode("utf-8", errors="replace")
                yield SqliteSource(conn)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            # SQLite's messages quote a damaged schema, which may be invalid UTF-8: hence UnicodeDecodeError.
            hint = "It may be damaged, or not be a database"
            raise FormatError(f"{file.name} cannot be read ({error})", hint) from error


class SqliteSource:
    """Reads named columns of real tables only: a view in an untrusted file may be a query that never ends."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        names = conn.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%VIRTUAL%'")
        self._columns = {
            str(name): {str(row[1]) for row in conn.execute("SELECT * FROM pragma_table_info(?)", (name,))}
            for (name,) in names.fetchall()
        }

    def has(self, table: str, *columns: str) -> bool:
        """Return whether the table exists with these columns."""
        return set(columns) <= self._columns.get(table, set()) and table in self._columns

    def rows(
        self, table: str, columns: Sequence[str], clause: str = "", parameters: Sequence[Any] = ()
    ) -> Iterator[dict[str, Any]]:
        """Yield rows as dicts, with None for missing columns; no rows if the table is missing.

        table: name of the table.
        columns: columns to read.
        clause: the rest of the query; it may name only columns that exist.
        parameters: values for the placeholders in `clause`.
        """
        if table not in self._columns:
            return
        existing_columns = [column for column in columns if column in self._columns[table]]
        if not existing_columns:
            return
        quoted = ", ".join(map(_quoted, existing_columns))
        query = f"SELECT {quoted} FROM {_quoted(table)} {clause}"
        for row in self._conn.execute(query, parameters):
            yield dict.fromkeys(columns) | dict(zip(existing_columns, row, strict=True))

    def rows_matching(
        self, table: str, columns: Sequence[str], key: str, values: Sequence[Any], order: str = ""
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows whose `key` is one of `values`.

        table: name of the table.
        columns: columns to read.
        key: name of the column to match.
        values: values to match.
        order: columns to sort by, separated by spaces; applied within each batch of values.
        """
        if not self.has(table, key):
            return
        order = ", ".join(_quoted(column) for column in order.split() if self.has(table, column))
        for start in range(0, len(values), BATCH_SIZE):
            batch = list(values[start : start + BATCH_SIZE])
            placeholders = ", ".join("?" * len(batch))
            order_clause = f" ORDER BY {order}" if order else ""
            yield from self.rows(table, columns, f"WHERE {_quoted(key)} IN ({placeholders}){order_clause}", batch)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
