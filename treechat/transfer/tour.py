"""The tour: a conversation tree that comes with the package, put among the user's own when it is asked for."""

from __future__ import annotations

from importlib.resources import files
from io import BytesIO

from treechat.formats.document import ImportReport
from treechat.formats.native.reader import read_native
from treechat.store import Store
from treechat.transfer.import_writer import import_document

SOURCE = "treechat-tour"


def open_tour(store: Store) -> str:
    """The id of the tour's conversation, brought into the store where it is not there, or is no longer visible."""
    report = ImportReport()
    content = files("treechat").joinpath("assets/tour.jsonl").read_bytes()
    (document,) = read_native(BytesIO(content), "the tour", report)
    assert not report.failed, f"the tour is damaged: {report.failed}"
    return import_document(store, document, SOURCE, report)
