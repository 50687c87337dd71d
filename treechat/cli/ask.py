"""`treechat ask`: one message, its reply or replies, kept in the tree."""

from __future__ import annotations

import codecs
import sys
from typing import TYPE_CHECKING, Any

import click

from treechat.cli.exit_status import INTERRUPTED
from treechat.cli.options import Session, db_option, json_option, model_option, pass_session
from treechat.cli.output import plural, say

if TYPE_CHECKING:
    from treechat.chat.session import Chat
    from treechat.chat.settings import Settings


@click.command()
@click.argument("text", nargs=-1)
@db_option
@model_option
@click.option("-c", "--continue", "parent", metavar="NODE", help="Go on from this node; else a new conversation.")
@click.option("-n", "--siblings", "n", type=click.IntRange(1, 64), default=1, help="Replies side by side.")
@click.option("--system", "system_prompt", metavar="TEXT", help="System prompt of a new conversation.")
@click.option("--max-tokens", type=click.IntRange(1), help="Longest reply.")
@click.option("--temperature", type=click.FloatRange(0, 100), help="0 is greedy.")
@click.option("--seed", type=int, help="For the same reply again.")
@json_option
@pass_session
@click.pass_context
def ask(
    ctx: click.Context,
    session: Session,
    /,
    text: tuple[str, ...],
    parent: str | None,
    n: int,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Ask TEXT, or what comes on standard input.

    The reply goes to standard output, the exchange into the tree.

    Ctrl-C stops the reply; what came stays in the tree.
    """
    from treechat.cli.reply_output import run

    if parent is not None and chosen["system_prompt"] is not None:
        raise click.UsageError("--system belongs to a new conversation, -c to one that has begun.")
    message = _message(text)
    settings = _settings(session, chosen)
    chat, parent_id = _open(session, parent, settings)
    # What stands on the command line beats what the conversation has of its own.
    chat.once = {name: chosen[name] for name in ("max_tokens", "temperature", "seed") if chosen[name] is not None}
    chat.model = _load(session, ctx)
    interrupted, failed = run(chat, message, parent_id, n, as_json)
    if interrupted:
        ctx.exit(INTERRUPTED)
    if failed:
        ctx.exit(1)


def _message(words: tuple[str, ...]) -> str:
    """The words, or standard input for none or `-`."""
    if words and words != ("-",):
        text = " ".join(words)
    elif not words and sys.stdin.isatty():
        raise click.UsageError("Say what to ask, or pipe it in.")
    else:
        text = _piped(sys.stdin.buffer.read())
    if not text.strip():
        raise click.UsageError("There is nothing to ask: the text is empty.")
    return text


def _piped(data: bytes) -> str:
    """Standard input as text, without its last line end."""
    from treechat.formats.reading.lines import decode

    if b"\0" in data:
        raise click.UsageError("Standard input is not text, or text in UTF-16: pipe in UTF-8.")
    text, num_replaced = decode(data.removeprefix(codecs.BOM_UTF8))
    if num_replaced:
        say(f"{plural(num_replaced, 'invalid character')} of standard input were replaced.")
    return text.rstrip("\r\n")


def _settings(session: Session, chosen: dict[str, Any]) -> Settings:
    from dataclasses import replace

    from treechat.chat.settings import Settings

    settings = Settings.from_config(session.config)
    return replace(settings, system_prompt=chosen["system_prompt"] or settings.system_prompt)


def _open(session: Session, parent: str | None, settings: Settings) -> tuple[Chat, str | None]:
    from treechat.chat.session import Chat

    if parent is None:
        return Chat.new(session.store, settings), None
    node, conversation_id = session.store.resolve(parent)
    return Chat.open(session.store, conversation_id, settings), node.id


def _load(session: Session, ctx: click.Context) -> Any:
    """The model, with its progress on standard error; closed with the command."""
    from treechat.chat.model import load as loading
    from treechat.cli.model_loading import Narrator, engine_config

    with Narrator() as narrator:
        model = loading.load_chat_model(
            session.model_spec,
            engine_config=engine_config(session.config),
            progress=narrator,
            kv_disk_mb=session.config.kv_disk_mb,
        )
    ctx.call_on_close(model.close)
    if model.is_text:
        click.echo(f"{model.name} has no chat template: text goes on from text.", err=True)
    return model
