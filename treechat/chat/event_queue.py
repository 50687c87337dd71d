"""The events of one operation of a chat, from the tasks that produce them to the one reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from treechat.chat.events import ChatEvent, NodeAdded, ReplyFinished
from treechat.tree import Node


class EventQueue:
    """A queue between an operation and its reader. An event counts as read when the reader asks for the next one."""

    def __init__(self) -> None:
        self.on_added: Callable[[Node], None] | None = None
        """Called with each node that is added, before the reader gets its event."""
        self._events: asyncio.Queue[ChatEvent | None] = asyncio.Queue()

    def put(self, event: ChatEvent) -> None:
        """Add an event without waiting for the reader."""
        if self.on_added is not None and isinstance(event, NodeAdded):
            self.on_added(event.node)
        self._events.put_nowait(event)

    async def hand_over(self, event: ChatEvent) -> None:
        """Add an event and wait until it is read."""
        self.put(event)
        await self.all_read()

    async def all_read(self) -> None:
        """Wait until the reader has read all events."""
        await self._events.join()

    async def stream(
        self, work: Callable[[EventQueue], Awaitable[object]], on_finished: Callable[[ReplyFinished], None]
    ) -> AsyncGenerator[ChatEvent, None]:
        """Run `work` in a task and yield the events that it puts into this queue.

        Errors of `work` are raised after its events. Closing the generator cancels `work` and waits for its cleanup.

        work: the operation; gets this queue.
        on_finished: called with the end of a reply before the reader gets it.
        """
        task = asyncio.ensure_future(work(self))
        task.add_done_callback(lambda _: self._events.put_nowait(None))
        try:
            while (event := await self._events.get()) is not None:
                if isinstance(event, ReplyFinished):
                    on_finished(event)
                yield event
                self._events.task_done()
            task.result()
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                # Mark the error as retrieved: the reader may have left before it.
                task.exception()
