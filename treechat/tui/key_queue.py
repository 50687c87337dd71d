"""Hold each key until the previous key's action and focus change are done, so that fast typing reaches the right part.

Textual sends a key to the focused widget. The app's action for it runs a few messages later and may move the focus.
Without this queue, the keys typed in between would still go to the widget that loses the focus.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

from textual import events
from textual.app import App
from textual.message import Message
from textual.message_pump import MessagePump
from textual.timer import Timer
from textual.widgets import Input, TextArea

LOST_S = 0.3
"""After this time a key that never arrived (its widget was closed, for example) no longer holds up the others."""

MAX_MOVES = 8
"""The most focus changes that are followed for one key."""


class KeyQueue:
    """Delivers keys and pasted texts to an app one at a time.

    A `Passed` message follows each key through the same message queues. The app hands it to `passed` when it arrives.
    The key is done when the focus has not moved since.
    """

    class Passed(Message):
        """Posted to the widget that received a key, after the key. It bubbles up to the app."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self, app: App[None], deliver: Callable[[events.Event], Awaitable[None]]) -> None:
        """deliver: gives an event to the focused widget, as Textual does."""
        self._app = app
        self._deliver = deliver
        self._waiting: deque[events.Key | events.Paste] = deque()
        self._is_busy = False
        self._number = 0
        self._num_moves = 0
        self._target: MessagePump | None = None
        self._timer: Timer | None = None

    async def put(self, event: events.Key | events.Paste) -> None:
        """Deliver a key or a pasted text, at once if no other key is under way."""
        if not self._is_busy and self._is_text(event):
            # Text moves no focus: the next key goes to the same field, after this one.
            await self._deliver(event)
        elif self._is_busy:
            self._waiting.append(event)
            if self._timer is None:
                self._timer = self._app.set_timer(LOST_S, self._give_up)
        else:
            self._is_busy, self._num_moves, self._target = True, 0, self._focus_target
            await self._deliver(event)
            self._follow()

    def passed(self, message: Passed) -> None:
        """A `Passed` message arrived at the app."""
        # The effects of the key's action, such as a change of focus, are in the queue before this call.
        self._app.call_later(self._settle, message.number)

    @property
    def _focus_target(self) -> MessagePump:
        return self._app.focused or self._app.screen

    @property
    def _in_field(self) -> bool:
        return isinstance(self._app.focused, Input | TextArea)

    def _is_text(self, event: events.Key | events.Paste) -> bool:
        return self._in_field and (isinstance(event, events.Paste) or event.is_printable)

    def _follow(self) -> None:
        """Send a message after the key."""
        self._number += 1
        if self._target is None or not self._target.post_message(self.Passed(self._number)):
            self._app.call_later(self._settle, self._number)

    async def _settle(self, number: int) -> None:
        """End the key if the focus has come to rest; else follow it to the newly focused widget."""
        if number != self._number or not self._app.screen_stack:
            return
        is_elsewhere = self._focus_target is not self._target
        # A field reports enter by a message of its own, which comes after the key.
        if (is_elsewhere or (self._in_field and not self._num_moves)) and self._num_moves < MAX_MOVES:
            self._num_moves += 1
            self._target = self._focus_target
            self._follow()
        else:
            await self._next()

    async def _next(self) -> None:
        self._is_busy = False
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        while self._waiting and not self._is_busy:
            await self.put(self._waiting.popleft())
        if self._waiting:
            self._timer = self._app.set_timer(LOST_S, self._give_up)

    async def _give_up(self) -> None:
        """Stop waiting for a key that was lost."""
        self._timer = None
        self._number += 1
        await self._next()
