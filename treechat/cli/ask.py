"""`treechat ask`: send one message and store its replies in the tree."""

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
@click.option(
    "-c", "--continue", "parent", metavar="NODE", help="Node to continue from; without it a new conversation starts."
)
@click.option("-n", "--siblings", "n", type=click.IntRange(1, 64), default=1, help="Number of replies, as siblings.")
@click.option("--system", "system_prompt", metavar="TEXT", help="System prompt of the new conversation.")
@click.option("--max-tokens", type=click.IntRange(1), help="Most tokens of a reply.")
@click.option("--temperature", type=click.FloatRange(0, 100), help="Sampling temperature; 0 is greedy.")
@click.option("--seed", type=int, help="Seed; the same seed gives the same reply.")
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
    **overrides: Any,
) -> None:
    """Send TEXT, or standard input, and print the reply.

    The message and the reply are stored in the tree.

    Ctrl-C stops the reply; the text so far stays in the tree.
    """
    from treechat.cli.reply_output import run

    if parent is not None and overrides["system_prompt"] is not None:
        raise click.UsageError("--system starts a new conversation, -c continues an existing one: use one of them.")
    message = _message(text)
    settings = _settings(session, overrides)
    chat, parent_id = _open(session, parent, settings)
    # Options of the command line take precedence over the settings of the conversation.
    chat.next_reply_values = {
        name: overrides[name] for name in ("max_tokens", "temperature", "seed") if overrides[name] is not None
    }
    chat.model = _load(session, ctx)
    interrupted, failed = run(chat, message, parent_id, n, as_json)
    if interrupted:
        ctx.exit(INTERRUPTED)
    if failed:
        ctx.exit(1)


def _message(words: tuple[str, ...]) -> str:
    """The words; standard input if there are none or for `-`."""
    if words and words != ("-",):
        text = " ".join(words)
    elif not words and sys.stdin.isatty():
        raise click.UsageError("Give a text, or pipe one in.")
    else:
        text = _decode_piped(sys.stdin.buffer.read())
    if not text.strip():
        raise click.UsageError("The text is empty.")
    return text


def _decode_piped(data: bytes) -> str:
    """Standard input as text, without its last line end. Invalid UTF-8 is replaced, and a note says so."""
    from treechat.formats.reading.lines import decode

    if b"\0" in data:
        raise click.UsageError("Standard input is not UTF-8 text (it may be UTF-16 or binary).")
    text, num_replaced = decode(data.removeprefix(codecs.BOM_UTF8))
    if num_replaced:
        say(f"Replaced {plural(num_replaced, 'invalid character')} of standard input.")
    return text.rstrip("\r\n")


def _settings(session: Session, overrides: dict[str, Any]) -> Settings:
    from dataclasses import replace

    from treechat.chat.settings import Settings

    settings = Settings.from_config(session.config)
    return replace(settings, system_prompt=overrides["system_prompt"] or settings.system_prompt)


def _open(session: Session, parent: str | None, settings: Settings) -> tuple[Chat, str | None]:
    from treechat.chat.session import Chat

    if parent is None:
        return Chat.new(session.store, settings), None
    node, conversation_id = session.store.resolve(parent)
    return Chat.open(session.store, conversation_id, settings), node.id


def _load(session: Session, ctx: click.Context) -> Any:
    """Load the model, with progress on standard error. It is closed at the end of the command."""
    from treechat.chat.model.load import load_chat_model
    from treechat.cli.model_loading import ProgressLine, engine_config

    with ProgressLine() as progress:
        model = load_chat_model(
            session.model_spec,
            engine_config=engine_config(session.config),
            progress=progress,
            kv_disk_mb=session.config.kv_disk_mb,
        )
    ctx.call_on_close(model.close)
    if model.is_text:
        click.echo(f"{model.name} has no chat template: it continues the plain text.", err=True)
    return model
