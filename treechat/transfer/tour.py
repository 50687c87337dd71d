"""The tour: a conversation tree in the package, imported into the user's database on request."""

from __future__ import annotations

from importlib.resources import files
from io import BytesIO

from treechat.formats.document import ImportReport
from treechat.formats.native.reader import read_native
from treechat.store import Store
from treechat.transfer.import_writer import import_document

SOURCE = "treechat-tour"


def open_tour(store: Store) -> str:
    """Import the tour if the store has no visible copy of it; returns the conversation's id."""
    report = ImportReport()
    content = files("treechat").joinpath("assets/tour.jsonl").read_bytes()
    (document,) = read_native(BytesIO(content), "the tour", report)
    assert not report.failed, f"the tour is damaged: {report.failed}"
    return import_document(store, document, SOURCE, report)
