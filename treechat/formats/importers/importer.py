"""What an importer is: a name, a look at the content, and a way from one file to documents."""

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
    """recognises: whether one of the first records of a file is of this format. read: yields whole conversations.
    is_in: whether a database holds such conversations; None where the program has none.

    `read` never raises for what is in a record: it reports, and goes on. Raises FormatError where nothing can be read,
    and OSError.
    """

    name: str
    title: str
    recognises: Callable[[Any], bool]
    read: Reader
    recognises_database: Callable[[SqliteSource], bool] | None = None


def read_by_record(convert: Callable[[Any, str, ImportReport], Document | None]) -> Reader:
    """A reader for formats in which one record is one conversation. convert: takes a record, and where it stands."""

    def read(file: Input, report: ImportReport) -> Iterator[Document]:
        for place, value in read_records(file, report):
            document = convert(value, place, report)
            if document is not None:
                yield document

    return read


def sample_records(file: Input, report: ImportReport) -> Iterator[Any]:
    """The first records of a file, for a look. Raises OSError, and FormatError for a bad zip."""
    with closing(read_records(replace(file, progress=None), report)) as records:
        for record in islice(records, NUM_SAMPLE_RECORDS):
            yield record.value
