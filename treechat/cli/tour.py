"""`treechat tour`: open the app at the tour."""

from __future__ import annotations

import click

from treechat.cli.options import Session, db_option, model_option, pass_session


@click.command()
@db_option
@model_option
@pass_session
def tour(session: Session, /) -> None:
    """Open the app at the tour: a conversation about treechat, to try all keys."""
    from treechat.cli.app import open_app
    from treechat.transfer.tour import open_tour

    open_app(session, open_tour(session.store))
