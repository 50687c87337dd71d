"""Shared by all commands: the options before or after a command, the configuration, the store."""

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
    """One run of the command line. Reads the configuration and the database on first use, so `--help` is fast."""

    def __init__(self) -> None:
        self.db: Path | None = None
        self.model: str | None = None

    @cached_property
    def config(self) -> Config:
        """The configuration. Raises ConfigError."""
        from treechat.config import load_config

        return load_config()

    @property
    def db_path(self) -> Path:
        """The path of `--db`, else of the configuration, else the default of the platform."""
        from treechat.paths import default_db

        return self.db or self.config.db or default_db()

    @property
    def model_spec(self) -> str | None:
        """The model of `--model`, else of the configuration; None is the default model."""
        return self.model or self.config.model

    @cached_property
    def store(self) -> Store:
        """The database, opened once and closed at the end of the command."""
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
    help="Database file.",
)
model_option = click.option(
    "-m",
    "--model",
    metavar="MODEL",
    expose_value=False,
    callback=_remember("model"),
    help="Model: a hub id, a directory, a .gguf file or an installed model.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
