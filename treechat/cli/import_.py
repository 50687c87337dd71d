"""`import`: read the exports of other programs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from treechat.cli.options import Session, db_option, json_option, pass_session
from treechat.cli.output import one_line, plural, print_json, say, size

if TYPE_CHECKING:
    from treechat.formats.document import ImportReport
    from treechat.transfer.import_job import Import

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
"""The most notes of the report that are printed; `--json` prints all."""

PROGRESS_S = 0.2


@click.command(name="import")
@db_option
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True), metavar="FILE...")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    metavar="FORMAT",
    help=f"Format of the files, if the content does not show it: {', '.join(FORMATS)}.",
)
@click.option("--dry-run", is_flag=True, help="Only count; change nothing.")
@json_option
@pass_session
@click.pass_context
def import_(
    ctx: click.Context, session: Session, files: tuple[Path, ...], form: str | None, dry_run: bool, as_json: bool
) -> None:
    """Import conversations from export files.

    A FILE is a file, a zip, a folder, or - for standard input. The format is detected from the content. All branches
    are imported; importing again adds only new messages. Skipped parts are listed with the reason. The exit status is 1
    if a part cannot be read.
    """
    from treechat.formats.importers.registry import IMPORTERS
    from treechat.transfer.import_job import Import

    progress = _Progress()
    run = Import(
        session.store, IMPORTERS[form] if form else None, dry_run=dry_run, progress=lambda: progress.show(run)
    )  # fmt: skip
    report = run.report
    try:
        for path in files:
            run.take(path, sys.stdin.buffer)
    except KeyboardInterrupt:
        progress.clear()
        say(f"Stopped. Imported {plural(report.conversations, 'conversation')}, each of them whole.")
        raise
    progress.clear()
    if as_json:
        print_json(report.to_dict())
    else:
        _print_report(report, dry_run)
    if report.failed:
        ctx.exit(1)


class _Progress:
    """A line on a terminal that shows the progress."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._next = time.monotonic() + PROGRESS_S

    def show(self, run: Import) -> None:
        if self._is_shown and time.monotonic() >= self._next:
            self._next = time.monotonic() + PROGRESS_S
            counts = f"{plural(run.report.conversations, 'conversation')}, {plural(run.report.nodes, 'node')}"
            name = one_line(run.name)[-30:]
            click.echo(f"\r\x1b[K{name}: {size(run.num_bytes)} read, {counts}", err=True, nl=False)

    def clear(self) -> None:
        if self._is_shown:
            click.echo("\r\x1b[K", err=True, nl=False)


def _print_report(report: ImportReport, dry_run: bool) -> None:
    for kind, reasons in (("skipped", report.dropped), ("failed", report.failed)):
        for reason in reasons[:MAX_SHOWN]:
            say(f"{kind}: {one_line(reason)}")
        if len(reasons) > MAX_SHOWN:
            say(f"{kind}: {len(reasons) - MAX_SHOWN:,} more; --json lists them")
    counts = [plural(report.conversations, "conversation"), plural(report.nodes, "node"), plural(report.forks, "fork")]
    same = f" {plural(report.num_unchanged, 'conversation')} had no new messages." if report.num_unchanged else ""
    say(f"{'Would add' if dry_run else 'Added'} {', '.join(counts[:2])} and {counts[2]}.{same}")
