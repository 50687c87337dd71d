"""The command line."""

import click

from treechat import __version__


@click.group(invoke_without_command=True)
@click.version_option(__version__)
def main() -> None:
    """LLM conversations that branch, without recomputing what branches share."""
