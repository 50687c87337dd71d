"""The command line. Each command imports its modules when it runs; `--help` loads only click."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from treechat import __version__
from treechat.cli.ask import ask
from treechat.cli.bench import bench
from treechat.cli.configuration import completion, config
from treechat.cli.doctor import doctor
from treechat.cli.edit import redo, rm, undo
from treechat.cli.exit_status import Commands
from treechat.cli.export import export
from treechat.cli.import_ import import_
from treechat.cli.models import models
from treechat.cli.options import Session, db_option, model_option, pass_session
from treechat.cli.show import cat, log, ls, search, show
from treechat.cli.tour import tour


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
@db_option
@model_option
@click.option("-c", "--conversation", metavar="NAME", help="Conversation or node to open.")
@pass_session
@click.pass_context
def main(ctx: click.Context, session: Session, conversation: str | None) -> None:
    """LLM conversations that branch, without recomputing shared prefixes.

    Without a command the app opens. The name of a node is the start of its id, its label, @ (the current node of the
    last conversation) or @~2 (two nodes above it).
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        # The shell closed this stream: read nothing from it, and discard output to it.
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 open to the end
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal cannot show must not end the command.
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="replace")
    if ctx.invoked_subcommand is None:
        from treechat.cli.app import open_app

        open_app(session, conversation)
    elif conversation is not None:
        raise click.UsageError("Put -c after the command, or use it without a command to open the app.")


for command in (
    ask, ls, show, cat, log, search, export, import_, rm, undo, redo, models, doctor, bench, config, completion, tour,
):  # fmt: skip
    main.add_command(command)
