"""`import`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from treechat.cli.context import Session, db_option, json_option, pass_session
from treechat.cli.output import plural, print_json, say

if TYPE_CHECKING:
    from treechat.formats.document import ImportReport


@click.command(name="import")
@db_option
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True), metavar="FILE...")
@click.option("--dry-run", is_flag=True, help="Count, and change nothing.")
@json_option
@pass_session
@click.pass_context
def import_(ctx: click.Context, session: Session, files: tuple[Path, ...], dry_run: bool, as_json: bool) -> None:
    """Add the conversations of exported files.

    Every branch comes in, and importing twice adds nothing. What is left out is said, with the reason; the exit
    status is 1 if anything could not be read.
    """
    from treechat.formats.document import ImportReport

    report = ImportReport()
    for path in files:
        _import_file(session, path, report, dry_run)
    if as_json:
        print_json(report.to_dict())
    else:
        _print_report(report, dry_run)
    if report.failed:
        ctx.exit(1)


def _import_file(session: Session, path: Path, report: ImportReport, dry_run: bool) -> None:
    from treechat.chat.documents import import_document
    from treechat.errors import FormatError
    from treechat.formats import native, native_reader

    name = "standard input" if str(path) == "-" else path.name
    try:
        with nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as file:
            for document in native_reader.read(file, name, report):
                import_document(session.store, document, native.FORMAT, report, dry_run)
    except OSError as error:
        report.fail(name, error.strerror or type(error).__name__)
    except FormatError as error:
        report.fail(name, str(error))


def _print_report(report: ImportReport, dry_run: bool) -> None:
    for reason in report.dropped:
        say(f"left out: {reason}")
    for reason in report.failed:
        say(f"failed: {reason}")
    counts = [plural(report.conversations, "conversation"), plural(report.nodes, "node"), plural(report.forks, "fork")]
    say(f"{'Would add' if dry_run else 'Added'} {', '.join(counts[:2])} and {counts[2]}.")
