"""The settings of the conversation and of the next reply, presets, and the choice of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from treechat.config import add_preset
from treechat.tui.screens.pick import model_picker
from treechat.tui.screens.settings import NAMES, ChosenSettings, InitialSettings, SettingsScreen
from treechat.tui.widgets.choice_list import ListChoice
from treechat.tui.window import Window

STOP = "\0stop"
"""The entry of the model list that stops the load; it is there while a model is being loaded."""


class SettingsActions(Window):
    """The actions that change how the next replies are generated."""

    def action_settings(self) -> None:
        chat = self.chat
        defaults = chat.defaults
        fallbacks = {name: f"{value:g}" for name, value in defaults.sampling_for(chat.model).chosen().items()}
        fallbacks |= {"max_tokens": str(defaults.max_tokens), "seed": _seed(defaults.seed)}
        initial = InitialSettings(
            model=chat.model.name if chat.model else "none is loaded yet",
            own_model=str((chat.own | chat.next_reply_values).get("model") or ""),
            models=self.model_choice.choices() if self.models.can_switch else [],
            system_prompt=chat.system_prompt,
            values={key: value for key, value in (chat.own | chat.next_reply_values).items() if key in NAMES},
            fallbacks=fallbacks,
            has_messages=bool(chat.tree.nodes),
            presets=self.config.presets,
        )

        def done(chosen: ChosenSettings | None) -> None:
            if chosen is not None and chat is self.chat:
                self._apply(chosen, initial)

        self.ask(SettingsScreen(initial, self._save_preset), done)

    def _apply(self, chosen: ChosenSettings, before: InitialSettings) -> None:
        chat = self.chat
        values = dict(chosen.values)
        is_other = chosen.system_prompt != before.system_prompt
        if is_other or "system_prompt" in chat.own:
            values["system_prompt"] = chosen.system_prompt
        if chosen.model:
            values["model"] = chosen.model
        if chosen.once:
            # The conversation's own settings that are not among the values are at their defaults for this reply.
            chat.next_reply_values = {
                name: getattr(chat.defaults, name) for name in chat.own if name not in values
            } | values
        else:
            chat.set_own(values)
        if is_other and chat.tree.nodes and not chat.is_text_tree:
            if chat.current_id is not None:
                self.jumps.append(chat.current_id)
            chat.begin_with_system(chosen.system_prompt)
            self.redraw()
            self.look_at(chat.current_id, anchor="end")
            self.say("The next message begins below this system prompt · backspace in the tree returns")
        elif chosen.once:
            self.say("For the next reply only")
        self.draw_labels()
        self.to_composer()
        self.model_choice.settings_changed()

    def _save_preset(self, name: str, values: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
        add_preset(name, values)
        self.config = replace(self.config, presets={**self.config.presets, name: values})
        self.say(f"Preset {name} is saved in the configuration")
        return self.config.presets

    def action_model(self) -> None:
        """Choose another model, or stop the load that runs."""
        if not self.models.can_switch:
            self.say("This window has only one model")
            return
        choices = self.model_choice.choices()
        if (load := self.models.load) is not None:
            choices.insert(0, ListChoice(STOP, f"Stop loading {load.name}", load.text))

        def done(spec: str | None) -> None:
            if spec == STOP:
                self.models.stop()
            elif spec is not None:
                self.model_choice.choose(spec)

        self.ask(model_picker(choices), done)


def _seed(seed: int | None) -> str:
    return "new each time" if seed is None else str(seed)
