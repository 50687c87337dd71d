"""Replies: asked for, streamed, stopped, continued; and the text that waits for a model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

from textual import on
from textual.worker import WorkerError

from treechat.chat.events import ChatEvent, NodeAdded, ReplyFinished, SpansMade, TextAdded
from treechat.chat.session import Chat
from treechat.config import Config
from treechat.errors import GenerationError, TreechatError
from treechat.tui.actions.editing import Changing
from treechat.tui.safe_text import one_line
from treechat.tui.widgets.composer import Composer
from treechat_engine import EngineError


class Generating(Changing):
    """The actions that need a model."""

    def __init__(self, store_path: Path | None, config: Config, conversation_id: str | None) -> None:
        super().__init__(store_path, config, conversation_id)
        self.count = 1
        self.is_queued = False
        self._sending: str | None = None
        self._writing: set[Chat] = set()

    # Sending

    @on(Composer.Submitted)
    def _submitted(self, event: Composer.Submitted) -> None:
        editing = self.chat.tree.nodes.get(self.editing_id or "")
        needs_model = editing is None or editing.role == "user"
        if self.chat.model is None and needs_model:
            self.is_queued = True
            self.composer.set_border_texts("sent when the model is ready · esc takes it back", "")
            return
        self.send(event.text)

    def send(self, text: str) -> None:
        """The text stays in the composer until its message is in the tree; what is typed meanwhile stays after that."""
        if text == self._sending:
            return
        if not self.chat.tree.nodes and not self.chat.title:
            # Not the system prompt's words, which would be the same for every conversation.
            self.chat.title = one_line(text)[:60]
        editing_id = self.editing_id
        if editing_id is not None and editing_id in self.chat.tree:
            events = self.chat.edit(editing_id, text)
        else:
            events = self.chat.send(text)

        self._sending = text

        def taken() -> None:
            self._sending = self.editing_id = None
            if self.composer.text.startswith(text):
                self.composer.put(self.composer.text[len(text) :])

        self.follow(events, taken)

    def send_queued(self) -> None:
        if self.is_queued:
            self.is_queued = False
            if self.composer.text.strip():
                self.send(self.composer.text)

    def action_edit(self) -> None:
        if (node := self.cursor) is not None:
            self.take_for_editing(node.id)
            self.to_composer()

    def action_editor(self) -> None:
        if (node := self.cursor) is None:
            return
        if self.is_web:
            self.action_edit()
            self.say("A browser has no $EDITOR: edit it here")
            return
        edited = self.edit_outside(self.chat.text(node.id))
        if edited is None:
            return
        if self.chat.model is None and node.role == "user":
            self.take_for_editing(node.id)
            self.composer.put(edited)
            self.to_composer()
        else:
            self.follow(self.chat.edit(node.id, edited))

    @on(Composer.Recalled)
    def _recalled(self) -> None:
        path = self.chat.tree.path(self.chat.current_id)
        last = next((i for i in reversed(path) if self.chat.tree[i].role == "user"), None)
        if last is not None:
            self.take_for_editing(last)

    def action_count(self, n: int) -> None:
        self.count = n
        self.status.activity = f"{n} × …  r regenerates"

    def action_regenerate(self) -> None:
        n, self.count = self.count, 1
        if self.cursor_id is not None:
            self.follow(self.chat.regenerate(self.cursor_id, n))

    def action_resume(self) -> None:
        if self.cursor_id is not None:
            self.follow(self.chat.resume(self.cursor_id))

    # Following

    def follow(self, events: AsyncIterator[ChatEvent], started: Callable[[], None] | None = None) -> None:
        """Draw events as they come, in a worker of their own."""
        self.run_worker(self._follow(self.chat, events, started), group="replies")

    async def _follow(self, chat: Chat, events: AsyncIterator[ChatEvent], started: Callable[[], None] | None) -> None:
        self._writing.add(chat)
        try:
            async for event in events:
                if started is not None:
                    started()
                    started = None
                if self.is_up:
                    self._draw(chat, event)
        except EngineError as error:
            self.tell(GenerationError(error.message, error.hint), "What you wrote is kept.")
        except TreechatError as error:
            self.tell(error, "What you wrote is kept." if started else "What came is kept.")
        finally:
            if started is not None:
                self._sending = None
            if not chat.streaming:
                self._writing.discard(chat)
            if self.is_up:
                self.transcript.refresh()
                self.draw_activity()
                self.replies_ended(chat)

    def _draw(self, chat: Chat, event: ChatEvent) -> None:
        if isinstance(event, ReplyFinished) and event.error:
            self.tell(GenerationError(event.error), "What came before is kept as a message.")
        if chat is not self.chat:
            return
        match event:
            case SpansMade(num, total):
                self.status.activity = f"tokens of {num:,}/{total:,} messages for this model"
            case TextAdded():
                self.transcript.grow(event.node_id)
            case NodeAdded(node):
                if node.id == chat.current_id:
                    self.look_at(node.id, anchor="end")
                else:
                    # It is counted among its siblings, also where these are shown.
                    self.transcript.refresh()
                    self.tree_pane.sync()
                self.draw_activity()
            case ReplyFinished(node):
                self.transcript.renew(node.id)
                self.tree_pane.sync()
                self.draw_activity()
                self.cursor_moved()
        if isinstance(event, NodeAdded) and node_is_shown(chat, self.view_id, event):
            self.transcript.renew(event.node.id)

    def replies_ended(self, chat: Chat) -> None:
        """Something for a subclass to hook on: what was asked for is done, however it ended."""

    def draw_activity(self) -> None:
        """What is being written; a subclass adds loading and warming."""
        num = len(self.chat.streaming)
        self.status.activity = f"writing {num} replies" if num > 1 else "writing" if num else ""

    # Stopping

    def stop_writing(self) -> bool:
        stopped = [chat.stop() for chat in {*self._writing, self.chat}]
        return any(stopped)

    async def finish_writing(self) -> None:
        """Stop all replies and wait until what came of them is stored."""
        self.stop_writing()
        workers = [worker for worker in self.workers if worker.group == "replies" and not worker.is_finished]
        for worker in workers:
            # Where the app goes down by itself, its workers were cancelled: they have kept what came all the same.
            with suppress(WorkerError):
                await worker.wait()

    async def action_quit(self) -> None:
        await self.finish_writing()
        self.exit()


def node_is_shown(chat: Chat, view_id: str | None, event: NodeAdded) -> bool:
    return view_id is not None and chat.tree.is_ancestor(event.node.id, view_id)
