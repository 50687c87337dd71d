"""Keys one after another: each goes where the one before it has led, however fast they are typed.

Textual hands a key to the focused widget, and hears of it again a few messages later, when the key has come up to the
app and its action moved the focus. What is typed meanwhile would still go to the widget that is being left.
"""

from __future__ import annotations

from collections import deque

from textual import events, on
from textual.app import App
from textual.message import Message
from textual.message_pump import MessagePump
from textual.timer import Timer
from textual.widgets import Input, TextArea

LOST_S = 0.3
"""A key that leads nowhere for this long (its widget was closed meanwhile, say) holds up the others no more."""

MOST_MOVES = 8
"""How often the focus may move for one key."""


class InTurn(App[None]):
    """Holds a key, or a pasted text, until the one before it has been done."""

    class Passed(Message):
        """Follows a key through the same queues: where this arrives, the key has been."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self) -> None:
        super().__init__()
        self._keys_waiting: deque[events.Key | events.Paste] = deque()
        self._key_under_way = False
        self._key_number = 0
        self._key_moves = 0
        self._key_target: MessagePump | None = None
        self._key_timer: Timer | None = None

    @property
    def _focus_target(self) -> MessagePump:
        return self.focused or self.screen

    @property
    def _in_field(self) -> bool:
        return isinstance(self.focused, Input | TextArea)

    def _is_text(self, event: events.Key | events.Paste) -> bool:
        return self._in_field and (isinstance(event, events.Paste) or event.is_printable)

    async def on_event(self, event: events.Event) -> None:
        if not isinstance(event, events.Key | events.Paste) or event.is_forwarded or not self.screen_stack:
            await super().on_event(event)
        elif not self._key_under_way and self._is_text(event):
            # It leads nowhere: what follows goes to the same field, behind it.
            await super().on_event(event)
        elif self._key_under_way:
            self._keys_waiting.append(event)
            if self._key_timer is None:
                self._key_timer = self.set_timer(LOST_S, self._key_lost)
        else:
            self._key_under_way, self._key_moves, self._key_target = True, 0, self._focus_target
            await super().on_event(event)
            self._follow_key()

    def _follow_key(self) -> None:
        """Send a message after the key."""
        self._key_number += 1
        if self._key_target is None or not self._key_target.post_message(self.Passed(self._key_number)):
            self.call_later(self._key_settled, self._key_number)

    @on(Passed)
    def _key_passed(self, message: InTurn.Passed) -> None:
        message.stop()
        # What the key's action has called for, a change of the focus above all, is in the queue by now.
        self.call_later(self._key_settled, message.number)

    async def _key_settled(self, number: int) -> None:
        """The key is done when the focus, and what the focused widget asked for, have come to rest."""
        if number != self._key_number or not self.screen_stack:
            return
        is_elsewhere = self._focus_target is not self._key_target
        # A field tells of enter by a message of its own, which is behind the key.
        if (is_elsewhere or (self._in_field and not self._key_moves)) and self._key_moves < MOST_MOVES:
            self._key_moves += 1
            self._key_target = self._focus_target
            self._follow_key()
        else:
            await self._next_key()

    async def _next_key(self) -> None:
        self._key_under_way = False
        if self._key_timer is not None:
            self._key_timer.stop()
            self._key_timer = None
        while self._keys_waiting and not self._key_under_way:
            await InTurn.on_event(self, self._keys_waiting.popleft())
        if self._keys_waiting:
            self._key_timer = self.set_timer(LOST_S, self._key_lost)

    async def _key_lost(self) -> None:
        self._key_timer = None
        self._key_number += 1
        await self._next_key()
