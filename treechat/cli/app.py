"""Open the app. The app loads the model in a thread, after its first frame."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from treechat.cli.options import Session
from treechat.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from treechat.chat.model.chat_model import ChatModel
    from treechat.models import Progress


def open_app(session: Session, conversation: str | None) -> None:
    """Run the app until the user quits. conversation: name of a conversation or node to open; None for a new one."""
    # Textual reads keys from stdin and draws on stderr. The driver of `textual serve` needs neither.
    for stream in (sys.__stdin__, sys.__stderr__):
        if (stream is None or not stream.isatty()) and "TEXTUAL_DRIVER" not in os.environ:
            raise UsageError("The app needs a terminal", "`treechat --help` lists the commands that work without one")
    from treechat.cli.model_loading import engine_config
    from treechat.cli.targets import find
    from treechat.tui.app import run_app
    from treechat.tui.keymap import check_appearance

    config = session.config
    check_appearance(config)
    conversation_id = None
    if conversation is not None:
        conversation_id, node_id = find(session.store, conversation)
        if node_id is not None:
            session.store.set_current(conversation_id, node_id)

    def load_named(spec: str | None, progress: Callable[[Progress], None]) -> ChatModel:
        from treechat.chat.model.load import load_chat_model

        return load_chat_model(
            spec, engine_config=engine_config(config), progress=progress, kv_disk_mb=config.kv_disk_mb
        )

    run_app(
        session.db_path,
        config=config,
        model_spec=session.model_spec,
        chat=conversation_id,
        load_model=lambda progress: load_named(session.model_spec, progress),
        load_named=load_named,
    )
