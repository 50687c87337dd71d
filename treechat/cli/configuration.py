"""`config` and `completion`: the configuration file, and shell completion."""

from __future__ import annotations

import click

from treechat.cli.options import json_option
from treechat.cli.output import print_json, say


@click.command()
@click.option("--edit", is_flag=True, help="Open the configuration file in $EDITOR.")
@json_option
def config(edit: bool, as_json: bool) -> None:
    """Print the configuration and the path of its file."""
    from treechat.config import config_path, load_config, to_toml

    path = config_path()
    if edit:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            commented = "".join(f"# {line}\n" if line and line[0] != "#" else f"{line}\n" for line in _default_lines())
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
    say(f"# {path}{'' if path.exists() else ' (no such file; these are the defaults)'}")
    click.echo(to_toml(values), nl=False)


def _default_lines() -> list[str]:
    from treechat.config import Config, to_toml

    return to_toml(Config()).splitlines()


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a completion script for a shell.

    Add this line to the start-up file of the shell: eval "$(treechat completion bash)"
    """
    from click.shell_completion import get_completion_class

    completion_class = get_completion_class(shell)
    assert completion_class is not None, f"click has no completion for {shell}"
    click.echo(completion_class(ctx.find_root().command, {}, "treechat", "_TREECHAT_COMPLETE").source())
