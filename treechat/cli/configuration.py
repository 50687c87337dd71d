"""`config` and `completion`."""

from __future__ import annotations

import click

from treechat.cli.options import json_option
from treechat.cli.output import print_json, say


@click.command()
@click.option("--edit", is_flag=True, help="Open the file in $EDITOR.")
@json_option
def config(edit: bool, as_json: bool) -> None:
    """Print the configuration and where it is."""
    from treechat.config import config_path, load_config, to_toml

    path = config_path()
    if edit:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            commented = "".join(f"# {line}\n" if line and line[0] != "#" else f"{line}\n" for line in _example())
            path.write_text(commented, encoding="utf-8")
        click.edit(filename=str(path))
        load_config(path)
        return
    values = load_config(path)
    if as_json:
        print_json(
            {"path": str(path), "exists": path.exists()}
            | {
                "values": {
                    k: v if v is None or isinstance(v, int | float | dict) else str(v)
                    for k, v in values.by_key().items()
                }
            }
        )
        return
    say(f"# {path}{'' if path.exists() else ' (not there: these are the defaults)'}")
    click.echo(to_toml(values), nl=False)


def _example() -> list[str]:
    from treechat.config import Config, to_toml

    return to_toml(Config()).splitlines()


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a shell's completion script.

    Source it from the shell's start-up file: eval "$(treechat completion bash)"
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None, f"click has no completion for {shell}"
    click.echo(made(ctx.find_root().command, {}, "treechat", "_TREECHAT_COMPLETE").source())
