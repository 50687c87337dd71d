"""The interface of an importer: a name, a test of the content, and a function from one file to documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

from treechat.formats.document import Document, ImportReport
from treechat.formats.reading.inputs import Input
from treechat.formats.reading.records import read_records
from treechat.formats.reading.sqlite_source import SqliteSource

NUM_SAMPLE_RECORDS = 12

Reader = Callable[[Input, ImportReport], Iterator[Document]]


class Importer(NamedTuple):
    """One foreign format.

    name: for `--format` and for the store.
    title: for users.
    recognises: returns whether a record, one of the first of a file, has this format.
    read: yields whole conversations. A fault in a record is reported, and the next record is read. Raises FormatError
        if nothing can be read, and OSError.
    recognises_database: returns whether a database has this format; None if the program has no database.
    """

    name: str
    title: str
    recognises: Callable[[Any], bool]
    read: Reader
    recognises_database: Callable[[SqliteSource], bool] | None = None


def read_by_record(convert: Callable[[Any, str, ImportReport], Document | None]) -> Reader:
    """Return a reader for a format with one conversation per record.

    convert: takes a record, its place and the report.
    """

    def read(file: Input, report: ImportReport) -> Iterator[Document]:
        for place, value in read_records(file, report):
            document = convert(value, place, report)
            if document is not None:
                yield document

    return read


def sample_records(file: Input, report: ImportReport) -> Iterator[Any]:
    """Yield the first records of a file, to recognise its format. Raises OSError, and FormatError for a damaged zip."""
    with closing(read_records(replace(file, progress=None), report)) as records:
        for record in islice(records, NUM_SAMPLE_RECORDS):
            yield record.value
