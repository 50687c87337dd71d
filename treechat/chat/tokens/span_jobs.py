"""Making the spans of a long path, as of an imported conversation: in a thread, told as it goes, and stoppable."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator

from treechat.chat.events import SpansMade
from treechat.chat.tokens.path_spans import SpanBook
from treechat.errors import GenerationError
from treechat.tree import Tree

AT_ONCE = 16
"""So many messages are tokenized before a window notices; more are left to a thread."""


async def make_spans(
    spans: SpanBook, tree: Tree, path: list[str], stopped: threading.Event
) -> AsyncGenerator[SpansMade, None]:
    """Make what the path lacks. However it ends, what was made is kept. Raises GenerationError where it is stopped."""
    total = spans.num_missing(path)
    if total <= AT_ONCE:
        spans.ensure(tree, path)
        return
    loop = asyncio.get_running_loop()
    counts: asyncio.Queue[int | None] = asyncio.Queue()
    task = asyncio.create_task(
        asyncio.to_thread(
            spans.ensure, tree, path, lambda num: loop.call_soon_threadsafe(counts.put_nowait, num), stopped
        )
    )
    task.add_done_callback(lambda _: counts.put_nowait(None))
    try:
        yield SpansMade(0, total)
        while (num := await counts.get()) is not None:
            yield SpansMade(num, total)
        if stopped.is_set():
            raise GenerationError(
                "Stopped before the reply began", "The tokens made so far are kept; regenerate (r) goes on."
            )
        task.result()
    finally:
        stopped.set()
        await asyncio.wait([task])
