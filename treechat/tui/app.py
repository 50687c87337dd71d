"""The app: all actions and services put together, the theme, errors of actions, and changes by other windows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from textual import events
from textual.actions import ActionParseResult
from textual.app import ComposeResult, SystemCommand
from textual.containers import Horizontal, Vertical
from textual.dom import DOMNode
from textual.message import Message
from textual.screen import Screen
from textual.widgets import TextArea

from treechat.config import Config
from treechat.errors import TreechatError
from treechat.tui.actions.branches import BranchActions
from treechat.tui.actions.conversations import ConversationActions
from treechat.tui.actions.editing import EditingActions
from treechat.tui.actions.kv import KvActions
from treechat.tui.actions.navigation import NavigationActions
from treechat.tui.actions.output import OutputActions
from treechat.tui.actions.replies import ReplyActions
from treechat.tui.actions.settings import SettingsActions
from treechat.tui.bindings import APP_BINDINGS, KEYS
from treechat.tui.keymap import textual_keymap
from treechat.tui.safe_text import as_input
from treechat.tui.saved_state import save_value
from treechat.tui.screens.help import HelpScreen
from treechat.tui.services.import_watch import ImportWatch
from treechat.tui.services.kv_watch import KvWatch
from treechat.tui.services.model_choice import ModelChoice
from treechat.tui.services.model_loader import LoadModel, ModelLoader
from treechat.tui.services.replies import Replies
from treechat.tui.themes import HIGH_CONTRAST, THEMES, saved_theme, theme_name
from treechat.tui.transcript.minimap import Minimap
from treechat.tui.transcript.view import Transcript
from treechat.tui.tree.pane import TreePane
from treechat.tui.widgets.composer import Composer
from treechat.tui.widgets.status import StatusLine, TopLine
from treechat.tui.window import NOTHING_LOST

if TYPE_CHECKING:
    from treechat.chat.model.room import LoadNamed

TWICE_S = 0.6
"""Two presses of esc within this many seconds open the tree."""

WATCH_S = 1.0
"""Seconds between two checks for changes by other windows."""


class TreechatApp(
    NavigationActions,
    EditingActions,
    ReplyActions,
    BranchActions,
    ConversationActions,
    OutputActions,
    SettingsActions,
    KvActions,
):
    """One window on a store of conversations. `bindings.py` says which key calls which action."""

    BINDINGS = APP_BINDINGS

    def __init__(
        self,
        store_path: Path | None,
        *,
        config: Config | None = None,
        model_spec: str | None = None,
        chat: str | None = None,
        load_model: LoadModel | None = None,
        load_named: LoadNamed | None = None,
    ) -> None:
        """Open the database and a conversation of it; the model is loaded after the first frame.

        store_path: None keeps everything in memory.
        config: the values of the configuration file; None for the defaults.
        model_spec: the name or path of the model that `load_model` loads; None for the default model.
        chat: id of a conversation; None opens the latest one.
        load_model: loads the first model; None for a window without a model.
        load_named: loads another model by its spec; None if there is only the first one.
        Raises StoreError, NodeNotFound.
        """
        super().__init__(store_path, config or Config(), chat)
        self.replies = Replies(self)
        self.kv_watch = KvWatch(self)
        self.imports = ImportWatch(self)
        self.models = ModelLoader(self, model_spec, load_named)
        self.model_choice = ModelChoice(self)
        self._load_model = load_model
        self._escaped_at = 0.0
        self._saved_theme = ""

    def compose(self) -> ComposeResult:
        yield TopLine(id="top")
        with Horizontal(id="body"):
            yield TreePane(id="tree")
            with Vertical(id="main"):
                with Horizontal(id="reading"):
                    yield (transcript := Transcript(id="transcript"))
                    yield Minimap(transcript, id="minimap")
                yield Composer(id="composer")
        yield StatusLine(id="status")

    def on_mount(self) -> None:
        for theme in THEMES:
            self.register_theme(theme)
        name = theme_name(self.config.theme or saved_theme(self.available_themes), os.environ)
        if name in self.available_themes:
            self.theme = name
        self._saved_theme = self.theme
        self._restyle()
        self.set_keymap(textual_keymap(self.config.keymap))
        self.theme_changed_signal.subscribe(self, lambda _: self._theme_changed())
        self.composer.focus()
        self.kv_watch.start()
        self.set_interval(WATCH_S, self._watch)
        # Sizes are known after the first refresh. The model is loaded later so that it does not delay the first frame.
        self.call_after_refresh(self._first_frame)

    def _restyle(self) -> None:
        self.set_class(self.theme == HIGH_CONTRAST.name, "-high-contrast")
        if self.is_up:
            self.transcript.restyle()

    def _theme_changed(self) -> None:
        """Save a theme that was chosen in the app for the next start, unless the configuration names one."""
        self._restyle()
        if self.theme == self._saved_theme:
            return
        self._saved_theme = self.theme
        if self.config.theme is None:
            save_value("theme", self.theme)
        else:
            self.say(f'For now: the configuration says theme = "{self.config.theme}"')

    def _first_frame(self) -> None:
        """Draw the conversation, then begin to load the model."""
        self.show_conversation()
        self.freeze_garbage()
        if self._load_model is not None:
            self.models.load_first(self._load_model)

    # Changes by other windows, and errors

    def _watch(self) -> None:
        if not self.is_up:
            return
        try:
            changed = not self.chat.streaming and self.chat.nodes.reload()
        except TreechatError as error:
            self.tell(error)
            return
        if changed:
            self.redraw()

    async def run_action(
        self,
        action: str | ActionParseResult,
        default_namespace: DOMNode | None = None,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """Run an action. If it fails for a reason outside of the app (a full disk, for example), show the error."""
        try:
            return await super().run_action(action, default_namespace, namespaces)
        except TreechatError as error:
            self.tell(error, NOTHING_LOST)
            return True

    async def _on_message(self, message: Message) -> None:
        """Handle a message, such as a click. An error is shown as an action's error is."""
        try:
            await super()._on_message(message)
        except TreechatError as error:
            self.tell(error, NOTHING_LOST)

    # Keys of the whole window

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.Key) and self.is_up:
            self.transcript.mark(())
        elif isinstance(event, events.Paste):
            event.text = as_input(event.text)
        if isinstance(event, events.Key | events.Paste) and not event.is_forwarded and self.screen_stack:
            await self.key_queue.put(event)
        else:
            await super().on_event(event)

    @property
    def clipboard(self) -> str:
        """The text that ctrl+v pastes into a text field, for example a copied message."""
        return as_input(super().clipboard)

    def action_escape(self) -> None:
        """Stop the replies; without replies, open the tree at the current node if pressed twice, else end one thing.

        That is the first of: a queued message, a load that the user asked for, an edit, the focus outside the composer.
        """
        now = time.monotonic()
        is_twice, self._escaped_at = now - self._escaped_at < TWICE_S, now
        if self.replies.stop():
            return
        if is_twice and not self.in_tree:
            self._escaped_at = 0.0
            self.action_here()
            self.open_tree()
        elif self.replies.is_queued:
            self.replies.is_queued = False
            self.draw_labels()
        elif self.models.load is not None and self.models.load.is_asked:
            self.models.stop()
        elif self.editing_id is not None:
            self.editing_id = None
            self.composer.put("")
            self.draw_labels()
        elif not self.composer.has_focus:
            self._escaped_at = 0.0
            self.to_composer()

    def action_help(self) -> None:
        self.push_screen(HelpScreen(self.config.keymap, "composer" if self.composer.has_focus else "panes"))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        yield from super().get_system_commands(screen)
        yield SystemCommand("Tour", "A conversation about treechat, to try every key on", self._command("app.tour"))
        for key in KEYS:
            if key.in_palette:
                yield SystemCommand(key.title, key.tooltip, self._command(key.action))

    def _command(self, action: str) -> Callable[[], None]:
        def run() -> None:
            self.run_worker(self.run_action(action), group="commands", exit_on_error=False)

        return run

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        if event.text_area.id == "composer" and self.is_up:
            self.draw_labels()

    async def action_quit(self) -> None:
        await self.replies.finish()
        self.exit()

    async def on_unmount(self) -> None:
        await self.replies.finish()
        self.imports.finish()
        await self.models.close()
        self.store.close()


def run_app(
    store_path: Path | None,
    *,
    config: Config | None = None,
    model_spec: str | None = None,
    chat: str | None = None,
    load_model: LoadModel | None = None,
    load_named: LoadNamed | None = None,
) -> None:
    """Run the app until its window is closed. The arguments are those of `TreechatApp`."""
    TreechatApp(
        store_path, config=config, model_spec=model_spec, chat=chat, load_model=load_model, load_named=load_named
    ).run()
