"""Warm, protect and inspect the KV of branches."""

from __future__ import annotations

from treechat.tui.screens.memory import MemoryScreen, MemoryTarget
from treechat.tui.window import Window


class KvActions(Window):
    """The actions that show or change which KV is in memory."""

    def action_warm(self) -> None:
        self.kv_watch.warm(self.cursor_id)

    def action_protect(self) -> None:
        if (node_id := self.cursor_id) is None:
            return
        protected = node_id not in self.chat.protected
        self.chat.set_protected(node_id, protected)
        self.tree_pane.refresh()
        self.say("This branch is evicted last" if protected else "No longer protected")

    def action_memory(self) -> None:
        model = self.chat.model
        if model is None:
            self.say("No model is loaded yet: no KV is in memory")
            return

        def done(target: MemoryTarget | None) -> None:
            if target is None:
                return
            if target.conversation_id != self.chat.conversation_id:
                self.switch_to(target.conversation_id)
            if target.node_id in self.chat.tree:
                self.look_at(target.node_id)

        self.ask(MemoryScreen(self.store, model, self.chat.conversation_id), done)
