"""Turn errors into a message on standard error and an exit status: 1 failed, 2 wrong usage, 130 interrupted."""

from __future__ import annotations

from typing import IO, Any

import click

from treechat.errors import TreechatError, UsageError

INTERRUPTED = 130


class Failure(click.ClickException):
    """A TreechatError as click's exception."""

    def __init__(self, error: TreechatError) -> None:
        super().__init__(str(error))
        self.exit_code = 2 if isinstance(error, UsageError) else 1  # type: ignore[misc]

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"treechat: {self.message}", err=True, file=file)


class Commands(click.Group):
    """A group whose commands may raise TreechatError. Lists commands in the order of their addition."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TreechatError as error:
            raise Failure(error) from error
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)
