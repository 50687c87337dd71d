"""Look up the KV costs of the visible rows off the draw path, and warm the branch that the cursor rests on."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from textual.timer import Timer

from treechat.chat.engine_protocol import WarmHandle
from treechat.chat.kv.costs import Cost
from treechat.errors import TreechatError
from treechat.tui.transcript.captions import cost_caption
from treechat_engine import EngineError, EngineStats

if TYPE_CHECKING:
    from treechat.tui.window import Window

COSTS_S = 0.5
"""Seconds between two checks whether the cache or the visible rows have changed."""

LEAST_PAUSE = 4
"""Wait this multiple of the last lookup's duration, so that lookups of long paths do not starve key handling."""


class KvWatch:
    """Costs of the visible rows, and at most one branch that is being warmed.

    rest_s: seconds after which the branch under a resting cursor is warmed if it is cold.
    """

    rest_s = 0.4

    def __init__(self, window: Window) -> None:
        self._window = window
        self._rest: Timer | None = None
        self._rested_id: str | None = None
        self._warm: WarmHandle | None = None
        self._warm_id: str | None = None
        self._costs_key: object = None
        self._is_looking = False
        self._looks_again_at = 0.0

    def start(self) -> None:
        """Begin to look up costs, once the window is mounted."""
        self._window.set_interval(COSTS_S, self._look_up_costs)

    # Warming

    def cursor_moved(self) -> None:
        """Stop warming another branch, restart the wait of `rest_s`, and draw the cost of the new row."""
        if self._rest is not None:
            self._rest.stop()
        if self._warm_id is not None and self._warm_id != self._window.cursor_id:
            self.stop_warming()
        self._rest = self._window.set_timer(self.rest_s, self._rested)
        self._draw_row()
        self._window.minimap.draw()

    def warm(self, node_id: str | None) -> None:
        """Rebuild the path's KV at the lowest priority. A branch that was being warmed is given up."""
        window = self._window
        if (kv := window.chat.kv) is None:
            window.say("No model is loaded yet")
            return
        if node_id is None:
            return
        self.stop_warming()
        try:
            self._warm = kv.warm(node_id)
        except TreechatError as error:
            window.tell(error)
        self._warm_id = node_id if self._warm is not None else None
        window.draw_activity()

    def stop_warming(self) -> None:
        if self._warm is not None:
            self._warm.cancel()
        self._warm = self._warm_id = None
        self._window.draw_activity()

    def _rested(self) -> None:
        self._rested_id = self._window.cursor_id
        if self._window.is_up:
            self._warm_if_cold()

    def _warm_if_cold(self) -> None:
        """Warm the branch once for each rest, after its cost is known."""
        window = self._window
        cost = window.tree_pane.costs.get(self._rested_id or "")
        if cost is None or self._rested_id != window.cursor_id:
            return
        self._rested_id = None
        if cost.mark != "●" and not window.chat.streaming and self._warm is None:
            self.warm(window.cursor_id)

    # Looking up costs

    def forget_costs(self) -> None:
        """Look the costs up again at the next check, as another model is in use."""
        self._costs_key = None

    async def _look_up_costs(self) -> None:
        """Look up in a thread, since a long path has many ids, and only if something has changed."""
        window = self._window
        chat, model, kv = window.chat, window.chat.model, window.chat.kv
        if model is None or kv is None or not window.is_up:
            return
        if self._is_looking or time.monotonic() < self._looks_again_at:
            return
        if chat.streaming:
            window.tree_pane.refresh()
        try:
            stats = model.engine.stats()
        except EngineError:
            return
        ids = set(window.tree_pane.visible_ids)
        ids.update(i for i in (window.cursor_id, window.view_id) if i is not None and i in chat.tree)
        key = (stats, frozenset(ids), chat.tree.version, id(chat))
        if key == self._costs_key:
            return
        self._is_looking, started_s = True, time.monotonic()
        try:
            await asyncio.to_thread(kv.protect, ids)
            costs = await asyncio.to_thread(kv.costs, ids)
        except (TreechatError, EngineError):
            # The window is closing, or the next lookup succeeds. Missing marks are no reason for a notification.
            return
        finally:
            self._is_looking, now = False, time.monotonic()
            self._looks_again_at = now + LEAST_PAUSE * (now - started_s)
        self._costs_key = key
        if chat is window.chat and window.is_up:
            self._take(costs, stats)

    def _take(self, costs: dict[str, Cost], stats: EngineStats) -> None:
        """Draw the costs, and end the warming if its branch is warm."""
        window = self._window
        window.tree_pane.costs = costs
        window.tree_pane.sync()
        window.minimap.update_costs(costs)
        used = stats.slots_total - stats.slots_free
        window.status.memory = f"{stats.device}  ·  {used:,}/{stats.slots_total:,} slots"
        self._draw_row()
        warmed = costs.get(self._warm_id or "")
        if warmed is not None and warmed.mark == "●":
            self._warm = self._warm_id = None
            window.draw_activity()
        self._warm_if_cold()

    # Drawing

    def _draw_row(self) -> None:
        """Show the cost of a reply at the node under the cursor."""
        cost = self._window.tree_pane.costs.get(self._window.cursor_id or "")
        self._window.status.row = cost_caption(cost) if cost else ""

    def draw_activity(self) -> None:
        """Set `warming` of the status line. It is not shown while a reply is being written."""
        chat = self._window.chat
        is_shown = self._warm_id in chat.tree and not chat.streaming
        self._window.status.set("warming", "warming" if is_shown else "")
