"""Where the KV of what is in sight is, kept up to date off the draw path; and computing it ahead of need."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from textual import on
from textual.timer import Timer

from treechat.chat.engine_protocol import WarmHandle
from treechat.config import Config
from treechat.errors import TreechatError
from treechat.tui.actions.remembering import Remembering
from treechat.tui.transcript.captions import cost_caption
from treechat.tui.transcript.minimap import Minimap
from treechat_engine import EngineError, EngineStats

REST_S = 0.4
"""Resting on a cold branch for so long warms it."""

COSTS_S = 0.5
"""How often the marks are looked up again, where the cache or what is in sight has changed."""

LEAST_PAUSE = 4
"""Times as long as a lookup took, nothing is looked up: where a path has 100,000 nodes, keys need the time, too."""


class Warming(Remembering):
    """Costs of the rows in sight, and warming."""

    def __init__(self, store_path: Path | None, config: Config, conversation_id: str | None) -> None:
        super().__init__(store_path, config, conversation_id)
        self._rest: Timer | None = None
        self._rested_id: str | None = None
        self._warm: WarmHandle | None = None
        self._warm_id: str | None = None
        self._costs_key: object = None
        self._is_looking = False
        self._looks_again_at = 0.0

    def on_mount(self) -> None:
        self.set_interval(COSTS_S, self._look_up_costs)

    def cursor_moved(self) -> None:
        if self._rest is not None:
            self._rest.stop()
        if self._warm_id is not None and self._warm_id != self.cursor_id:
            self.stop_warming()
        self._rest = self.set_timer(REST_S, self._rested)
        self.draw_row()
        self.draw_minimap()

    def _rested(self) -> None:
        self._rested_id = self.cursor_id
        if self.is_up:
            self._warm_if_cold()

    def _warm_if_cold(self) -> None:
        """Once for each rest, as soon as it is known where the branch's KV is."""
        cost = self.tree_pane.costs.get(self._rested_id or "")
        if cost is None or self._rested_id != self.cursor_id:
            return
        self._rested_id = None
        if cost.mark != "●" and not self.chat.streaming and self._warm is None:
            self.action_warm()

    def action_protect(self) -> None:
        if (node_id := self.cursor_id) is None:
            return
        protected = node_id not in self.chat.protected
        self.chat.set_protected(node_id, protected)
        self.tree_pane.refresh()
        self.say("This branch is let go last" if protected else "Protected no longer")

    def action_warm(self) -> None:
        node_id = self.cursor_id
        if (kv := self.chat.kv) is None:
            self.say("No model is loaded yet")
            return
        if node_id is None:
            return
        self.stop_warming()
        try:
            self._warm = kv.warm(node_id)
        except TreechatError as error:
            self.tell(error)
        self._warm_id = node_id if self._warm is not None else None
        self.draw_activity()

    def stop_warming(self) -> None:
        if self._warm is not None:
            self._warm.cancel()
        self._warm = self._warm_id = None
        self.draw_activity()

    def draw_activity(self) -> None:
        super().draw_activity()
        if self._warm_id in self.chat.tree and not self.chat.streaming:
            self.status.activity = "warming"

    def action_bookmark(self) -> None:
        super().action_bookmark()
        self.base_screen.query_one(Minimap).draw(force=True)

    def draw_minimap(self) -> None:
        self.base_screen.query_one(Minimap).draw()

    @on(Minimap.Pointed)
    def _cell_clicked(self, event: Minimap.Pointed) -> None:
        self.look_at(event.node_id, view_id=self.view_id, anchor="keep")

    def draw_row(self) -> None:
        """What going on at the node under the cursor would take."""
        cost = self.tree_pane.costs.get(self.cursor_id or "")
        self.status.row = cost_caption(cost) if cost else ""

    async def _look_up_costs(self) -> None:
        """In a thread: a long path's ids are many. Nothing is looked up while nothing has changed."""
        chat, model, kv = self.chat, self.chat.model, self.chat.kv
        if self._is_looking or model is None or kv is None or not self.is_up or time.monotonic() < self._looks_again_at:
            return
        if chat.streaming:
            self.tree_pane.refresh()
        try:
            stats = model.engine.stats()
        except EngineError:
            return
        ids = set(self.tree_pane.visible_ids)
        ids.update(i for i in (self.cursor_id, self.view_id) if i is not None and i in chat.tree)
        key = (stats, frozenset(ids), chat.tree.version, id(chat))
        if key == self._costs_key:
            return
        self._is_looking, started_s = True, time.monotonic()
        try:
            await asyncio.to_thread(kv.protect, ids)
            costs = await asyncio.to_thread(kv.costs, ids)
        except (TreechatError, EngineError):
            # The window is closing, or the next look will say more; marks alone are no reason to disturb anyone.
            return
        finally:
            self._is_looking, now = False, time.monotonic()
            self._looks_again_at = now + LEAST_PAUSE * (now - started_s)
        self._costs_key = key
        if chat is not self.chat or not self.is_up:
            return
        self.tree_pane.costs = costs
        self.tree_pane.sync()
        self.base_screen.query_one(Minimap).update_costs(costs)
        self.draw_memory(stats)
        self.draw_row()
        warmed = costs.get(self._warm_id or "")
        if warmed is not None and warmed.mark == "●":
            self._warm = self._warm_id = None
            self.draw_activity()
        self._warm_if_cold()

    def draw_memory(self, stats: EngineStats) -> None:
        used = stats.slots_total - stats.slots_free
        self.status.memory = f"{stats.device}  ·  {used:,}/{stats.slots_total:,} slots"
