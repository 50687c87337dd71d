"""A foreign SQLite file: tables and columns that may be there or not."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

BATCH = 500


class SqliteSource:
    """Reads named columns of real tables only: a view of a stranger may be a program that never ends."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        names = conn.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%VIRTUAL%'")
        self._columns = {
            str(name): {str(row[1]) for row in conn.execute("SELECT * FROM pragma_table_info(?)", (name,))}
            for (name,) in names.fetchall()
        }

    def has(self, table: str, *columns: str) -> bool:
        return set(columns) <= self._columns.get(table, set()) and table in self._columns

    def rows(
        self, table: str, columns: Sequence[str], where: str = "", parameters: Sequence[Any] = ()
    ) -> Iterator[dict[str, Any]]:
        """Rows as dicts, None for a column that the file does not have; nothing where the table is missing.

        where: the rest of the query, of columns that are known to be there.
        """
        if table not in self._columns:
            return
        present = [column for column in columns if column in self._columns[table]]
        if not present:
            return
        quoted = ", ".join(map(_quoted, present))
        query = f"SELECT {quoted} FROM {_quoted(table)} {where}"
        for row in self._conn.execute(query, parameters):
            yield dict.fromkeys(columns) | dict(zip(present, row, strict=True))

    def rows_of(
        self, table: str, columns: Sequence[str], key: str, values: Sequence[Any], order: str = ""
    ) -> Iterator[dict[str, Any]]:
        """The rows whose `key` is one of `values`."""
        if not self.has(table, key):
            return
        order = ", ".join(_quoted(column) for column in order.split() if self.has(table, column))
        for start in range(0, len(values), BATCH):
            piece = list(values[start : start + BATCH])
            marks = ", ".join("?" * len(piece))
            tail = f" ORDER BY {order}" if order else ""
            yield from self.rows(table, columns, f"WHERE {_quoted(key)} IN ({marks}){tail}", piece)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
