"""Getting a message's text out of the app: the terminal's clipboard, a file where that is lacking, or $PAGER."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from textual.app import SuspendNotSupported

from treechat.errors import TreechatError
from treechat.paths import cache_dir
from treechat.tui.actions.navigation import Navigating
from treechat.tui.safe_text import escape_controls

_CODE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def lacks_clipboard(env: Mapping[str, str]) -> bool:
    """Whether the terminal is one that is known to take no copies (OSC 52)."""
    return env.get("TERM", "") in ("linux", "dumb", "vt100", "vt220") or env.get("TERM_PROGRAM") == "Apple_Terminal"


class Copying(Navigating):
    """The actions that hand text to other programs."""

    def action_copy(self) -> None:
        if self.cursor_id is not None:
            self._copy(self.transcript.cache.visible_text(self.chat, self.cursor_id), "Message")

    def action_copy_code(self) -> None:
        blocks = _CODE.findall(self.chat.text(self.cursor_id)) if self.cursor_id else []
        if blocks:
            self._copy(blocks[-1], "Code")
        else:
            self.say("No code block in this message")

    def _copy(self, text: str, what: str) -> None:
        if self.is_web or not lacks_clipboard(os.environ):
            self.copy_to_clipboard(text)
            self.say(f"{what} copied · P opens it {'in a tab' if self.is_web else 'in $PAGER'}")
            return
        target = cache_dir() / "copied.md"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8", errors="replace")
        except OSError as error:
            self.tell(TreechatError(f"{target} cannot be written: {error.strerror}", "P opens the message in $PAGER."))
            return
        self.say(f"This terminal takes no copies. {what} written to {target}")

    def action_pager(self) -> None:
        """The message in `$PAGER` (in a browser: a tab), control characters made visible: a pager may pass them on."""
        if self.cursor_id is None:
            return
        text = escape_controls(self.chat.text(self.cursor_id))
        if self.is_web:
            self.deliver_text(StringIO(text), save_filename="message.txt", open_method="browser", encoding="utf-8")
            return
        pager = os.environ.get("PAGER") or "less"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "message.md"
            path.write_text(text, encoding="utf-8")
            try:
                with self.suspend():
                    subprocess.run([*shlex.split(pager), str(path)], check=True)
            except (OSError, ValueError, SuspendNotSupported, subprocess.CalledProcessError) as error:
                self.tell(TreechatError(f"{pager} did not end well: {error}", "Set $PAGER to a pager."))
