"""All importers, and the choice of the importer for a file by its content. File names are not used."""

from __future__ import annotations

from collections.abc import Iterator

from treechat.errors import FormatError
from treechat.formats.document import Document, ImportReport
from treechat.formats.importers import (
    claude,
    librechat,
    llamacpp,
    loom,
    openai_chat,
    openwebui,
    pi,
    sharegpt,
    sillytavern,
)
from treechat.formats.importers.chatgpt import chatgpt_export
from treechat.formats.importers.importer import Importer, sample_records
from treechat.formats.importers.llm import llm_logs
from treechat.formats.native.reader import read_native
from treechat.formats.native.writer import FORMAT
from treechat.formats.reading.inputs import Input
from treechat.formats.reading.sqlite_source import open_sqlite


def _read(file: Input, report: ImportReport) -> Iterator[Document]:
    with file.open() as stream:
        yield from read_native(stream, file.name, report)


NATIVE = Importer(
    FORMAT,
    "treechat",
    lambda value: isinstance(value, dict) and value.get("format") == FORMAT,
    _read,
)

IMPORTERS = {
    importer.name: importer
    for importer in (
        NATIVE,
        chatgpt_export.IMPORTER,
        claude.IMPORTER,
        librechat.IMPORTER,
        openwebui.IMPORTER,
        sillytavern.IMPORTER,
        llamacpp.IMPORTER,
        pi.IMPORTER,
        llm_logs.IMPORTER,
        loom.IMPORTER,
        openai_chat.IMPORTER,
        sharegpt.IMPORTER,
    )
}
"""Importers by name. The first that recognises a file imports it."""


def importer_for(file: Input) -> Importer | None:
    """Return the importer that recognises the content of a file, None if none does.

    Raises OSError. Raises FormatError for a file too damaged to recognise, and for treechat's own database.
    """
    if file.is_sqlite:
        with open_sqlite(file) as source:
            if source.has("nodes", "conversation_id", "parent_id") and source.has("spans", "node_id"):
                option = f"--db {file.name}"
                hint = f"Open it with `{option}`, or import what `export --all {option} -o all.jsonl` writes"
                raise FormatError(f"{file.name} is a database of treechat's own", hint)
            for importer in IMPORTERS.values():
                if importer.recognises_database is not None and importer.recognises_database(source):
                    return importer
            return None
    sample_report = ImportReport()
    for value in sample_records(file, sample_report):
        for importer in IMPORTERS.values():
            if importer.recognises(value):
                return importer
    if sample_report.failed:
        raise unknown_format(file.name, sample_report.failed[0].removeprefix(file.name).lstrip(", "))
    return None


def unknown_format(name: str, why: str = "") -> FormatError:
    """Return the error for a file that no importer recognises."""
    titles = ", ".join(importer.title for importer in IMPORTERS.values())
    return FormatError(
        f"{name} is in no format that treechat reads ({titles}){f'; {why}' if why else ''}",
        "If it is one of these, name it with --format",
    )
