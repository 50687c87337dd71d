"""Looking at what the slots hold."""

from __future__ import annotations

from treechat.tui.actions.grafting import Grafting
from treechat.tui.screens.memory import MemoryScreen, MemoryTarget


class Remembering(Grafting):
    """The action that opens the memory view."""

    def action_memory(self) -> None:
        model = self.chat.model
        if model is None:
            self.say("No model is loaded yet: nothing is in memory")
            return

        def done(target: MemoryTarget | None) -> None:
            if target is None:
                return
            if target.conversation_id != self.chat.conversation_id:
                self.switch_to(target.conversation_id)
            if target.node_id in self.chat.tree:
                self.look_at(target.node_id)

        self.ask(MemoryScreen(self.store, model, self.chat.conversation_id), done)
