"""`models`: list and remove the models on this machine."""

from __future__ import annotations

import click

from treechat.cli.exit_status import Commands
from treechat.cli.options import json_option
from treechat.cli.output import print_json, say, size, table


@click.group(cls=Commands, invoke_without_command=True)
@json_option
@click.pass_context
def models(ctx: click.Context, as_json: bool) -> None:
    """List or remove installed models."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_, as_json=as_json)


@models.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List the installed models."""
    from treechat.models import DEFAULT_MODEL, installed

    found = installed()
    if as_json:
        print_json(
            [
                {
                    "name": m.name,
                    "path": str(m.path),
                    "size_bytes": m.size_bytes,
                    "source": m.source,
                    "default": m.is_default,
                }
                for m in found
            ]
        )
    elif not found:
        say(f"No model is installed yet. The first reply fetches {DEFAULT_MODEL}; --model selects another.")
    else:
        rows = [(m.name, size(m.size_bytes), m.source, "default" if m.is_default else "") for m in found]
        click.echo(table(("name", "size", "source", ""), rows))


@models.command(name="rm")
@click.argument("name")
def remove_(name: str) -> None:
    """Remove the files of a model. It is fetched again when needed."""
    from treechat.models import remove

    say(f"Removed {name}: {size(remove(name))} freed.")
