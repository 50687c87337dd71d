"""Make the spans of a long path, for example an imported one: in a thread, with progress, and stoppable."""

from __future__ import annotations

import asyncio
import threading

from treechat.chat.event_queue import EventQueue
from treechat.chat.events import SpansMade
from treechat.chat.tokens.path_spans import SpanBook
from treechat.errors import GenerationError
from treechat.tree import Tree

AT_ONCE = 16
"""The most messages that are tokenized in the event loop; more are tokenized in a thread."""


async def make_spans(
    spans: SpanBook, tree: Tree, path: list[str], stopped: threading.Event, events: EventQueue
) -> None:
    """Make the spans that the path lacks. All spans made are stored, however it ends.

    spans: the book that gets the spans.
    tree: the tree of the path.
    path: node ids, root first.
    stopped: setting it ends the work and raises GenerationError; cancelling the coroutine sets it.
    events: gets the progress. The work begins after the first event is read.
    """
    total = spans.num_missing(path)
    if total <= AT_ONCE:
        spans.ensure(tree, path)
        return
    loop = asyncio.get_running_loop()

    def made(num: int) -> None:
        loop.call_soon_threadsafe(events.put, SpansMade(num, total))

    await events.hand_over(SpansMade(0, total))
    task = asyncio.create_task(asyncio.to_thread(spans.ensure, tree, path, made, stopped))
    try:
        await asyncio.wait([task])
        if stopped.is_set():
            raise GenerationError(
                "Stopped before the reply began", "The tokens made so far are kept; regenerate (r) continues."
            )
        task.result()
    finally:
        stopped.set()
        await asyncio.wait([task])
