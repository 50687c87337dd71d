"""The memory view: KV slots by conversation and branch, like a disk-usage tool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from treechat.chat.kv.slot_usage import SlotUsage, free, slot_usage_of
from treechat.chat.model.chat_model import ChatModel
from treechat.errors import TreechatError
from treechat.store import Store
from treechat.tui.bindings import MEMORY_BINDINGS
from treechat.tui.screens.memory_rows import MemoryRows, heading
from treechat.tui.screens.modal import Modal
from treechat_engine import EngineError, EngineStats

POLL_S = 1.0
"""Seconds between two checks whether the cache has changed."""


class MemoryTarget(NamedTuple):
    """The conversation to open, and the node to go to; None: its current node."""

    conversation_id: str
    node_id: str | None


class MemoryScreen(Modal[MemoryTarget | None]):
    """Returns the branch to go to, or None."""

    BINDINGS = MEMORY_BINDINGS

    def __init__(self, store: Store, model: ChatModel, opened_id: str | None = None) -> None:
        """Show the slots of a model.

        store: all its conversations are considered.
        model: its engine holds the slots.
        opened_id: the conversation whose branches are visible from the start.
        """
        super().__init__()
        self._store = store
        self._model = model
        self._stats: EngineStats | None = None
        self.rows = MemoryRows()
        if opened_id is not None:
            self.rows.open_ids.add(opened_id)

    def compose(self) -> ComposeResult:
        with Vertical(id="memory", classes="window full") as window:
            window.border_title = "Memory"
            window.border_subtitle = "d frees · l opens · enter opens it · esc closes"
            yield Static("reading …", id="slots", markup=False)
            yield Static("", id="tiers", markup=False)
            yield self.rows

    def on_mount(self) -> None:
        self.rows.focus()
        self._look()
        self.set_interval(POLL_S, self._look_again)

    def on_resize(self) -> None:
        self.call_after_refresh(self._head)

    def _head(self) -> None:
        self.query_one("#tiers", Static).update(heading(self.rows.scrollable_content_region.width))

    def _look_again(self) -> None:
        try:
            if self._model.engine.stats() != self._stats:
                self._look()
        except EngineError:
            # The app is closing.
            return

    @work(exclusive=True, group="memory")
    async def _look(self) -> None:
        """Read the slots again, in a thread because it reads all conversations."""
        await self._do(lambda: None)

    @work(exclusive=True, group="memory")
    async def _free(self, conversation_id: str, head_id: str | None) -> None:
        num = await self._do(lambda: free(self._store, self._model, conversation_id, head_id))
        if num is not None:
            self.notify(f"{num:,} slots freed · the text stays", timeout=4, markup=False)

    async def _do(self, act: Callable[[], int | None]) -> int | None:
        """Run `act` in a thread, then show the slots; return its result, or None on an error."""

        def run() -> tuple[int | None, SlotUsage]:
            done = act()
            return done, slot_usage_of(self._store, self._model)

        try:
            done, memory = await asyncio.to_thread(run)
        except (TreechatError, EngineError) as error:
            self.query_one("#slots", Static).update(f"{error.message}. {error.hint}")
            return None
        self._stats = memory.stats
        self.query_one("#slots", Static).update(slots_line(memory))
        self._head()
        self.rows.show(memory)
        return done

    # Keys

    def action_line(self, by: int) -> None:
        self.rows.go(self.rows.index + by)

    def action_page(self, by: int) -> None:
        self.rows.go(self.rows.index + by * max(self.rows.size.height - 1, 1))

    def action_edge(self, by: int) -> None:
        self.rows.go(0 if by < 0 else len(self.rows.rows) - 1)

    def action_open(self, opens: bool) -> None:
        """Show or hide the branches of a conversation. The keys that open also close an open conversation."""
        if (row := self.rows.row) is not None:
            is_open = row.conversation.id in self.rows.open_ids
            self.rows.open(row.conversation, opens and not (is_open and row.branch is None))

    def action_free(self) -> None:
        if (row := self.rows.row) is not None:
            self._free(*row.key)

    def action_go(self) -> None:
        if (row := self.rows.row) is not None:
            self.dismiss(MemoryTarget(row.conversation.id, row.branch.tip_id if row.branch else None))

    def action_close(self) -> None:
        self.dismiss(None)

    @on(MemoryRows.Pointed)
    def _pointed(self, event: MemoryRows.Pointed) -> None:
        self.rows.go(event.index)
        if event.is_twice:
            self.action_go()


def slots_line(memory: SlotUsage) -> str:
    """Return `cpu · 1,234 of 93,206 slots used`, the host tier, and the slots that belong to no visible branch."""
    stats = memory.stats
    parts = [f"{stats.device} · {stats.slots_total - stats.slots_free:,} of {stats.slots_total:,} slots used"]
    if stats.host_total:
        parts.append(f"host {stats.host_cached:,} of {stats.host_total:,}")
    if memory.num_other:
        parts.append(f"{memory.num_other:,} of hidden or unfinished texts")
    return " · ".join(parts)
