"""`import`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from treechat.cli.context import Session, db_option, json_option, pass_session
from treechat.cli.output import one_line, plural, print_json, say, size

if TYPE_CHECKING:
    from treechat.chat.documents import Planned
    from treechat.formats.document import ImportReport
    from treechat.formats.importer import Importer
    from treechat.formats.inputs import Input

FORMATS = (
    "treechat",
    "chatgpt",
    "claude",
    "librechat",
    "openwebui",
    "sillytavern",
    "llamacpp",
    "pi",
    "llm",
    "basemode-loom",
    "openai",
    "sharegpt",
)

MAX_SHOWN = 40
"""Sentences of the report that are printed; `--json` prints all."""

PROGRESS_S = 0.2


@click.command(name="import")
@db_option
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True), metavar="FILE...")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    metavar="FORMAT",
    help=f"What the files are, if the content does not tell: {', '.join(FORMATS)}.",
)
@click.option("--dry-run", is_flag=True, help="Count, and change nothing.")
@json_option
@pass_session
@click.pass_context
def import_(
    ctx: click.Context, session: Session, files: tuple[Path, ...], form: str | None, dry_run: bool, as_json: bool
) -> None:
    """Add the conversations of exported files.

    A FILE is a file, a zip as it was downloaded, a folder, or - for standard input. The format is told from the
    content. Every branch comes in; importing again adds only what is new. What is left out is said, with the reason;
    the exit status is 1 if anything could not be read.
    """
    from treechat.formats.document import ImportReport

    report = ImportReport()
    run = _Run(session, report, form, dry_run)
    try:
        for path in files:
            run.take(path)
    except KeyboardInterrupt:
        run.progress.clear()
        say(f"Stopped. {plural(report.conversations, 'conversation')} came in, each of them whole.")
        raise
    run.progress.clear()
    if as_json:
        print_json(report.to_dict())
    else:
        _print_report(report, dry_run)
    if report.failed:
        ctx.exit(1)


class _Run:
    """One import of several files into one database."""

    def __init__(self, session: Session, report: ImportReport, form: str | None, dry_run: bool) -> None:
        from treechat.formats.importers import IMPORTERS

        self.session, self.report, self.dry_run = session, report, dry_run
        self.importer = IMPORTERS[form] if form else None
        self.progress = _Progress(report)
        self.planned: Planned = {}

    def take(self, path: Path) -> None:
        from treechat.errors import FormatError
        from treechat.formats.inputs import inputs_of

        name = "standard input" if str(path) == "-" else path.name
        try:
            with inputs_of(path, sys.stdin.buffer, self.progress.read) as files:
                self._take_all(files, name, single=not path.is_dir())
        except OSError as error:
            self.report.fail(name, error.strerror or type(error).__name__)
        except FormatError as error:
            self.report.fail(name, str(error))

    def _take_all(self, files: Iterator[Input], name: str, single: bool) -> None:
        """Each file for itself: one that cannot be read does not keep the others out."""
        from treechat.errors import FormatError
        from treechat.formats.importers import importer_for, unknown_format

        num_read = num_other = 0
        for file in files:
            try:
                importer = self.importer or importer_for(file)
                if importer is None:
                    num_other += 1
                    continue
                num_read += 1
                self._read(file, importer)
            except OSError as error:
                self.report.fail(file.name, error.strerror or type(error).__name__)
            except FormatError as error:
                self.report.fail(file.name, str(error))
                num_read += 1
        if not num_read:
            raise unknown_format(name)
        if num_other:
            self.report.drop(name, f"{plural(num_other, 'other file')} in it, without conversations")

    def _read(self, file: Input, importer: Importer) -> None:
        from treechat.chat.documents import import_document

        self.progress.name = file.name
        for document in importer.read(file, self.report):
            import_document(
                self.session.store, document, importer.name, self.report, self.dry_run, self.planned
            )  # fmt: skip


class _Progress:
    """A line on a terminal that says how far it is."""

    def __init__(self, report: ImportReport) -> None:
        self.report, self.name, self.num_bytes = report, "", 0
        self._is_shown = sys.stderr.isatty()
        self._next = time.monotonic() + PROGRESS_S

    def read(self, num_bytes: int) -> None:
        self.num_bytes += num_bytes
        if self._is_shown and time.monotonic() >= self._next:
            self._next = time.monotonic() + PROGRESS_S
            counts = f"{plural(self.report.conversations, 'conversation')}, {plural(self.report.nodes, 'node')}"
            name = one_line(self.name)[-30:]
            click.echo(f"\r\x1b[K{name}: {size(self.num_bytes)} read, {counts}", err=True, nl=False)

    def clear(self) -> None:
        if self._is_shown:
            click.echo("\r\x1b[K", err=True, nl=False)


def _print_report(report: ImportReport, dry_run: bool) -> None:
    for kind, reasons in (("left out", report.dropped), ("failed", report.failed)):
        for reason in reasons[:MAX_SHOWN]:
            say(f"{kind}: {one_line(reason)}")
        if len(reasons) > MAX_SHOWN:
            say(f"{kind}: {len(reasons) - MAX_SHOWN:,} more; --json lists them")
    counts = [plural(report.conversations, "conversation"), plural(report.nodes, "node"), plural(report.forks, "fork")]
    say(f"{'Would add' if dry_run else 'Added'} {', '.join(counts[:2])} and {counts[2]}.")
