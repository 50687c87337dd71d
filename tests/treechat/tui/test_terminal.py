"""The app in a real terminal: tmux sends the keys and reads the screen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.treechat.shared import store_trip
from treechat.store import Store

pytestmark = [
    pytest.mark.terminal,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux: install it and run `pytest -m terminal`"),
]


# Between two reads of the screen, since each starts a process.
LOOK_S = 0.05


class Terminal:
    """One window of a separate tmux server."""

    def __init__(self, socket: str, command: list[str], env: dict[str, str]) -> None:
        self._tmux = ["tmux", "-L", socket, "-f", os.devnull]
        size = ["-x", "80", "-y", "24"]
        subprocess.run([*self._tmux, "new-session", "-d", *size, *command], check=True, env=os.environ | env)

    def screen(self) -> str:
        done = subprocess.run([*self._tmux, "capture-pane", "-p"], capture_output=True, text=True, check=False)
        return done.stdout

    def keys(self, *keys: str) -> None:
        subprocess.run([*self._tmux, "send-keys", *keys], check=True)

    def is_open(self) -> bool:
        return subprocess.run([*self._tmux, "has-session"], capture_output=True, check=False).returncode == 0

    def until(self, condition: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < give_up_at, self.screen()
            time.sleep(LOOK_S)

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, check=False)


def test_the_tree_is_read_and_left_in_a_real_terminal(tmp_path) -> None:
    path = tmp_path / "tree.db"
    conversation_id = store_trip(path)
    # There is no such model. The tree can be read without one.
    command = [sys.executable, "-m", "treechat", "--db", str(path), "-m", str(tmp_path / "nothing")]
    folders = {f"TREECHAT_{name}_DIR": str(tmp_path / name) for name in ("DATA", "CACHE", "CONFIG")}
    terminal = Terminal(f"treechat-test-{os.getpid()}", command, folders | {"HF_HUB_OFFLINE": "1"})
    try:
        terminal.until(lambda: "To Siena." in terminal.screen())
        terminal.keys("Tab")
        terminal.until(lambda: "← here" in terminal.screen() and "2/2" in terminal.screen())
        terminal.keys("j", "Enter")
        terminal.until(lambda: "To Lucca." in terminal.screen() and "← here" not in terminal.screen())
        terminal.keys("C-q")
        terminal.until(lambda: not terminal.is_open())
    finally:
        terminal.close()
    with Store.open(path) as store:
        assert store.conversation(conversation_id).current_id == "b"
