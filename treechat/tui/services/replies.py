"""Send messages and draw the replies as their events arrive; keep a message until a model is loaded."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from textual.worker import WorkerError

from treechat.chat.events import ChatEvent, NodeAdded, ReplayProgress, ReplyFinished, SpansMade, TextAdded
from treechat.chat.reply import Reply
from treechat.chat.session import Chat
from treechat.errors import GenerationError, TreechatError
from treechat.tui.safe_text import one_line
from treechat.tui.screens.siblings import SiblingsScreen
from treechat_engine import EngineError

if TYPE_CHECKING:
    from treechat.tui.window import Window

WORKER_GROUP = "replies"


class Replies:
    """The replies of all conversations that this window opened.

    is_queued: the composer's text is sent when a model is loaded.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self._sending: str | None = None
        self._writing: set[Chat] = set()
        self._replaying: dict[Chat, ReplayProgress] = {}
        self.is_queued = False

    # Sending

    def send(self, text: str) -> None:
        """Send the composer's text, as a sibling of the message that is being edited if there is one.

        The text stays in the composer until its message is in the tree. Text typed in the meantime stays after that.
        """
        window = self._window
        if text == self._sending:
            return
        if not window.chat.tree.nodes and not window.chat.title:
            # The title is not taken from the system prompt, which is the same in every conversation.
            window.chat.title = one_line(text)[:60]
        editing_id = window.editing_id
        if editing_id is not None and editing_id in window.chat.tree:
            events = window.chat.edit(editing_id, text)
        else:
            events = window.chat.send(text)

        self._sending = text

        def started() -> None:
            self._sending = window.editing_id = None
            if window.composer.text.startswith(text):
                window.composer.put(window.composer.text[len(text) :])

        self.follow(events, started)

    def queue(self) -> None:
        """Send the composer's text when a model is loaded."""
        self.is_queued = True
        self._window.composer.set_border_texts("sent when the model is ready · esc cancels", "")

    def send_queued(self) -> None:
        """Send the queued text, if there is one."""
        if self.is_queued:
            self.is_queued = False
            if self._window.composer.text.strip():
                self.send(self._window.composer.text)

    # Following

    def follow(self, events: AsyncIterator[ChatEvent], started: Callable[[], None] | None = None) -> None:
        """Draw the events of the open conversation in a worker. `started` is called before the first one is drawn."""
        self._window.run_worker(self._follow(self._window.chat, events, started), group=WORKER_GROUP)

    def follow_replay(self, chat: Chat, events: AsyncGenerator[ChatEvent, None]) -> None:
        """Draw the events of a rebase, and show which turn is replayed."""
        self.follow(self._replay(chat, events))

    async def _replay(self, chat: Chat, events: AsyncGenerator[ChatEvent, None]) -> AsyncGenerator[ChatEvent, None]:
        try:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, ReplayProgress):
                        self._replaying[chat] = event
                        self._window.draw_activity()
                    yield event
        finally:
            self._replaying.pop(chat, None)

    async def _follow(self, chat: Chat, events: AsyncIterator[ChatEvent], started: Callable[[], None] | None) -> None:
        window = self._window
        self._writing.add(chat)
        try:
            async for event in events:
                if started is not None:
                    started()
                    started = None
                if window.is_up:
                    self._draw(chat, event)
        except EngineError as error:
            window.tell(GenerationError(error.message, error.hint), "Your text is kept.")
        except TreechatError as error:
            window.tell(error, "Your text is kept." if started else "The partial reply is kept.")
        finally:
            if started is not None:
                self._sending = None
            if not chat.streaming:
                self._writing.discard(chat)
            if window.is_up:
                window.transcript.refresh()
                window.draw_activity()
                window.model_choice.replies_ended(chat)

    def _draw(self, chat: Chat, event: ChatEvent) -> None:
        window = self._window
        if isinstance(event, ReplyFinished) and event.error:
            window.tell(GenerationError(event.error), "The partial reply is kept as a message.")
        if chat is window.chat:
            self._draw_open(chat, event)
        for screen in window.screen_stack:
            if isinstance(screen, SiblingsScreen) and screen.chat is chat:
                screen.apply_event(event)

    def _draw_open(self, chat: Chat, event: ChatEvent) -> None:
        """Draw an event of the conversation that is open."""
        window = self._window
        match event:
            case SpansMade(num, total):
                window.status.set("notice", f"tokens of {num:,}/{total:,} messages for this model")
            case TextAdded():
                window.transcript.grow(event.node_id)
            case NodeAdded(node):
                if node.id == chat.current_id:
                    window.look_at(node.id, anchor="end")
                else:
                    # The number of siblings changed, which the headers of visible siblings show.
                    window.transcript.refresh()
                    window.tree_pane.sync()
                window.draw_activity()
            case ReplyFinished(node):
                window.transcript.refresh_message(node.id)
                window.tree_pane.sync()
                window.draw_activity()
                window.kv_watch.cursor_moved()
        if (
            isinstance(event, NodeAdded)
            and window.view_id is not None
            and chat.tree.is_ancestor(event.node.id, window.view_id)
        ):
            window.transcript.refresh_message(event.node.id)

    def draw_activity(self) -> None:
        """Set `writing` and `replaying` of the status line."""
        chat, status = self._window.chat, self._window.status
        num, step = len(chat.streaming), self._replaying.get(chat)
        status.set("writing", f"writing {num} replies" if num > 1 else "writing" if num else "")
        status.set("replaying", f"replaying turn {step.number} of {step.total} · esc stops" if step else "")

    # Stopping

    @property
    def streaming(self) -> list[Reply]:
        """The replies that are being written, in this and other conversations."""
        return [reply for chat in self._chats for reply in chat.replies.values()]

    @property
    def _chats(self) -> set[Chat]:
        return {*self._writing, self._window.chat}

    def stop(self) -> bool:
        """Stop all replies; False if there were none. The text generated so far is kept."""
        stopped = [chat.stop() for chat in self._chats]
        return any(stopped)

    async def finish(self) -> None:
        """Stop all replies and wait until their text is stored."""
        self.stop()
        workers = [each for each in self._window.workers if each.group == WORKER_GROUP and not each.is_finished]
        for worker in workers:
            # A worker that was cancelled because the app ends has stored its text too.
            with suppress(WorkerError):
                await worker.wait()
