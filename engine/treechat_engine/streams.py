"""Events of the engine's thread, brought to an asyncio event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from treechat_engine.api import Finished
from treechat_engine.request import Event, RequestHandle, Sink


class Streams:
    """One queue of events per request, in the event loop that is running when this is made."""

    def __init__(self, handles: Sequence[RequestHandle]) -> None:
        self.handles = handles
        self._loop = asyncio.get_running_loop()
        self._queues: list[asyncio.Queue[Event]] = [asyncio.Queue() for _ in handles]

    def sink(self, i: int) -> Sink:
        """What the i-th request delivers its events to, on the engine's thread."""

        def put(event: Event) -> bool:
            try:
                self._loop.call_soon_threadsafe(self._queues[i].put_nowait, event)
            except RuntimeError:
                # The loop was closed: nobody is there to read.
                return False
            return True

        return put

    async def events(self, i: int) -> AsyncIterator[Event]:
        """The i-th request's events up to `Finished`. Closing it cancels the request."""
        try:
            while True:
                event = await self._queues[i].get()
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            self.handles[i].cancel()


class FanOut:
    """Siblings of one prompt. `streams` has one async iterator of events per sibling; closing one cancels it alone."""

    def __init__(self, streams: Streams) -> None:
        self._handles = streams.handles
        self.streams: list[AsyncIterator[Event]] = [streams.events(i) for i in range(len(streams.handles))]

    def cancel(self, i: int) -> None:
        """Cancels one sibling; its stream still ends with `Finished`."""
        self._handles[i].cancel()

    def cancel_all(self) -> None:
        for handle in self._handles:
            handle.cancel()
