"""Making the spans of a long path, as of an imported conversation: in a thread, told as it goes, and stoppable."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator

from treechat.chat.engine_protocol import ChatEngine, WarmHandle, requesting
from treechat.chat.events import SpansMade
from treechat.chat.tokens.path_spans import SpanBook
from treechat.errors import GenerationError, TreechatError
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


class LateWarm:
    """Warms a path once its spans are made, in a thread; until then there is nothing to compute."""

    def __init__(self, engine: ChatEngine, spans: SpanBook, tree: Tree, path: list[str]) -> None:
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._handle: WarmHandle | None = None
        threading.Thread(target=self._run, args=(engine, spans, tree, path), name="make-spans", daemon=True).start()

    def _run(self, engine: ChatEngine, spans: SpanBook, tree: Tree, path: list[str]) -> None:
        try:
            spans.ensure(tree, path, stopped=self._stopped)
            with self._lock:
                if not self._stopped.is_set():
                    with requesting():
                        self._handle = engine.warm(spans.ids(tree, path))
        except TreechatError:
            # Nobody waits for it: sending there says what is wrong, and a closing window needs no answer.
            return

    def cancel(self) -> None:
        """Stop; spans and KV that were made stay."""
        with self._lock:
            self._stopped.set()
            if self._handle is not None:
                self._handle.cancel()
