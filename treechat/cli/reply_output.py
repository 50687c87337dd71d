"""Print replies: streamed text, or one JSON document at the end."""

from __future__ import annotations

import asyncio
import signal
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from treechat.chat.events import ReplyFinished, SpansMade, TextAdded
from treechat.cli.output import SHORT_LEN, plural, print_json, print_text, say

if TYPE_CHECKING:
    from treechat.chat.session import Chat


class Outcome(NamedTuple):
    """How the replies ended.

    interrupted: Ctrl-C stopped them.
    failed: at least one ended with an error.
    """

    interrupted: bool
    failed: bool


def run(chat: Chat, message: str, parent_id: str | None, n: int, as_json: bool) -> Outcome:
    """Send a message and print its replies. Ctrl-C stops them; the text so far is stored.

    chat: the conversation.
    message: text of the message.
    parent_id: its parent node; None for a root.
    n: number of replies.
    as_json: print one JSON document at the end instead of the text.
    """
    return asyncio.run(_run(chat, message, parent_id, n, as_json))


async def _run(chat: Chat, message: str, parent_id: str | None, n: int, as_json: bool) -> Outcome:
    interrupted = asyncio.Event()

    def interrupt() -> None:
        interrupted.set()
        chat.stop()

    restore = _on_interrupt(interrupt)
    finished: list[ReplyFinished] = []
    printed = ""
    try:
        async with aclosing(chat.send(message, parent_id=parent_id, n=n)) as events:
            async for event in events:
                if isinstance(event, ReplyFinished):
                    finished.append(event)
                elif isinstance(event, SpansMade) and not event.num:
                    say(_cost_note(chat, event.total))
                elif isinstance(event, TextAdded) and n == 1 and not as_json:
                    printed = event.text or printed
                    print_text(event.text, end="")
    finally:
        restore()
    order = {node_id: i for i, node_id in enumerate(chat.tree.nodes)}
    finished.sort(key=lambda event: order[event.node.id])
    if as_json:
        print_json(_json(chat, finished))
    elif n == 1 and not printed.endswith("\n"):
        click.echo()
    elif n > 1:
        _print_siblings(chat, finished)
    for event in finished:
        if event.error:
            say(f"treechat: {event.error}")
    if interrupted.is_set():
        say("Stopped. The text so far is kept.")
    return Outcome(interrupted.is_set(), any(event.error for event in finished))


def _cost_note(chat: Chat, num_messages: int) -> str:
    """The cost of continuing a branch that has no tokens for this model yet."""
    note = f"Tokenizing {plural(num_messages, 'message')} for this model, once"
    cost = chat.kv.cost(chat.current_id) if chat.kv is not None and chat.current_id is not None else None
    if cost is None:
        return f"{note}."
    wait = f", ~{cost.seconds:.0f} s" if cost.seconds and cost.seconds >= 1 else ""
    return f"{note}; then computing about {cost.computed:,} tokens{wait}."


def _on_interrupt(interrupt: Any) -> Any:
    """Make the first Ctrl-C stop the replies and the second one abort. Returns a function that restores the default."""
    loop = asyncio.get_running_loop()

    def once() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        interrupt()

    try:
        loop.add_signal_handler(signal.SIGINT, once)
    except (NotImplementedError, RuntimeError, ValueError):
        # Windows, or not the main thread: asyncio cancels the task, and the chat stores the text so far.
        return lambda: None
    return lambda: loop.remove_signal_handler(signal.SIGINT)


def _print_siblings(chat: Chat, finished: list[ReplyFinished]) -> None:
    for i, event in enumerate(finished, 1):
        say(f"── {i}/{len(finished)} · {event.node.id[:SHORT_LEN]}")
        print_text(chat.text(event.node.id))


def _json(chat: Chat, finished: list[ReplyFinished]) -> dict[str, Any]:
    return {"conversation": chat.conversation_id, "nodes": [_node_json(chat, event) for event in finished]}


def _node_json(chat: Chat, event: ReplyFinished) -> dict[str, Any]:
    turn = event.turn
    counts = ("prompt_tokens", "cached_tokens", "restored_tokens", "computed_tokens", "completion_tokens")
    return {
        "id": event.node.id,
        "parent": event.node.parent_id,
        "text": chat.text(event.node.id),
        "finish_reason": turn.finish_reason,
        "usage": {name: getattr(turn, name) for name in (*counts, "ttft_s", "total_s")},
    }
