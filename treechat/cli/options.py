"""What all commands share: the options that may stand before or after a command, the configuration, the store."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from treechat.config import Config
    from treechat.store import Store


class Session:
    """One run of the command line. Nothing is read before it is asked for, so that `--help` is quick."""

    def __init__(self) -> None:
        self.db: Path | None = None
        self.model: str | None = None

    @cached_property
    def config(self) -> Config:
        """The configuration file; raises ConfigError."""
        from treechat.config import load_config

        return load_config()

    @property
    def db_path(self) -> Path:
        """`--db`, else the configuration's, else the platform's."""
        from treechat.paths import default_db

        return self.db or self.config.db or default_db()

    @property
    def model_spec(self) -> str | None:
        """`--model`, else the configuration's; None is the default model."""
        return self.model or self.config.model

    @cached_property
    def store(self) -> Store:
        """The database, opened once and closed with the command."""
        from treechat.store import Store

        store = Store.open(self.db_path)
        click.get_current_context().find_root().call_on_close(store.close)
        return store


pass_session = click.make_pass_decorator(Session, ensure=True)


def _remember(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value is not None:
            setattr(ctx.ensure_object(Session), name, value)

    return callback


db_option = click.option(
    "--db",
    type=click.Path(dir_okay=False, path_type=Path),
    expose_value=False,
    callback=_remember("db"),
    help="Database to use.",
)
model_option = click.option(
    "-m",
    "--model",
    metavar="MODEL",
    expose_value=False,
    callback=_remember("model"),
    help="Model: a hub id, a directory or a .gguf file.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
