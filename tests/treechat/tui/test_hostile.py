"""Hostile text is typed, pasted and shown everywhere. Nothing of it reaches the terminal raw, and no column moves."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
import unicodedata

import pytest
from rich.cells import cell_len
from textual import events
from textual.geometry import Region

from tests.fakes import scripted_model
from treechat.config import Config
from treechat.store import NewNode, Store

ESCAPES = (
    "\x1b[6666z\x1b[31m\x1b]52;c;aGFja2Vk\x07\x1b]0;owned\x1b\\\x9b2J"
    "\x9d52;c;aGFja2Vk\x9c\x1bP1$r\x1b\\\x00\x07\x08\x7f\x0e\r"
)
BIDI = "\u202eevil\u202c \u2066iso\u2069 \u061c\u200f"
WIDE = "漢字仮名 한글 ｗｉｄｅ 👩\u200d👩\u200d👧\u200d👦 🏳\ufe0f\u200d🌈 👍🏽 🇮🇹 e\u0301 n\u0303 \u200b\u2060\ufeff"
ZALGO = "z" + "\u0351\u036b\u0343\u0363\u0310\u0321" * 20 + "algo"
MARKUP = "[bold]b[/bold] [/] [link=file:///etc/passwd]x[/link] [@click=app.quit]q[/] $primary {0} %s \\[ ["
HOSTILE = f"{MARKUP} {ESCAPES} {BIDI} {WIDE} {ZALGO} \ud800\udfff"
LONG = "x" * 1_000_000

RAW = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def assert_safe(app, where: str) -> None:
    """Check that no drawn character controls a terminal or text direction, and that lines have their widget's width."""
    for y, strip in enumerate(app.screen._compositor.render_strips()):
        text = strip.text
        found = RAW.search(text)
        assert found is None, f"{where}, line {y}: {found.group()!r} in {text!r}"
        assert not any(segment.control for segment in strip), where
    for widget in app.screen.walk_children():
        width, height = widget.outer_size
        if not widget.is_on_screen or not width * height:
            continue
        for y, strip in enumerate(widget.render_lines(Region(0, 0, width, height))):
            cells = sum(cell_len(segment.text) for segment in strip)
            assert cells == width, f"{where}, {widget}, line {y}: {cells} cells in {width}: {strip.text!r}"


async def paste(d, text: str) -> None:
    d.app.post_message(events.Paste(text))
    await d.pilot.pause()
    await d.pilot.pause()


@pytest.mark.parametrize("size", [(80, 24), pytest.param((131, 40), marks=pytest.mark.slow)])
async def test_hostile_text_is_safe_wherever_it_is_typed_pasted_or_shown(open_app, size, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TREECHAT_CONFIG_DIR", str(tmp_path))
    config = Config(presets={"[bold]p\x1b[31m": {"system_prompt": HOSTILE.encode("utf-8", "replace").decode()}})
    async with open_app(size=size, model=scripted_model(HOSTILE + "\n\n```\n" + HOSTILE + "\n```"), config=config) as d:
        app = d.app
        app.composer.focus()
        await paste(d, HOSTILE)
        assert_safe(app, "composer, pasted")
        for char in HOSTILE:
            if unicodedata.category(char) not in ("Cc", "Cs"):
                app.post_message(events.Key(char, char))
        await d.pilot.pause()
        assert_safe(app, "composer, typed")
        await d.press("enter")
        await d.until(lambda: len(app.chat.tree) == 2 and d.is_idle, "a reply")
        await d.press("tab", "tab", "2", "r")
        await d.until(lambda: len(app.chat.tree) == 4 and d.is_idle, "two more")
        assert_safe(app, "columns")
        await d.press("q")
        for keys in (["m"], ["f2"]):
            await d.press(*keys)
            await paste(d, HOSTILE)
            assert_safe(app, f"{keys}: asking")
            await d.press("enter")
            assert_safe(app, f"{keys}: kept")
        for key in ("ctrl+g", "slash", "ctrl+o", "x", "C", "R", "f4", "f5"):
            await d.press(key)
            assert_safe(app, f"{key}: opened")
            await paste(d, HOSTILE)
            assert_safe(app, f"{key}: pasted")
            await d.press("escape")
        await d.press("f3")
        await paste(d, HOSTILE)
        assert_safe(app, "settings, a number")
        app.screen.prompt.focus()
        await paste(d, HOSTILE)
        assert_safe(app, "settings, system prompt")
        await d.press("ctrl+o")
        assert_safe(app, "presets")
        await d.press("escape", "f2")
        await paste(d, HOSTILE)
        assert_safe(app, "name of a preset")
        await d.press("escape", "escape")
        for key in ("tab", "t", "s", "equals_sign", "v", "D", "f1", "M", "ctrl+p"):
            await d.press(key)
            assert_safe(app, f"{key}: opened")
            await d.press("j", "l")
            assert_safe(app, f"{key}: moved")
            while len(app.screen_stack) > 1:
                await d.press("escape")
        await d.press("escape", "f8")
        assert_safe(app, "left")


async def test_a_line_of_a_megabyte_is_taken_and_shown(open_app) -> None:
    async with open_app(model=scripted_model("short")) as d:
        app = d.app
        app.composer.focus()
        started = time.monotonic()
        await paste(d, LONG)
        assert_safe(app, "composer")
        await d.press("enter")
        await d.until(lambda: len(app.chat.tree) == 2 and d.is_idle, "a reply")
        assert_safe(app, "transcript")
        assert app.chat.text(app.chat.path()[0].id) == LONG
        await d.press("ctrl+g")
        await paste(d, LONG)
        assert_safe(app, "search")
        assert time.monotonic() - started < 120


SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI
    r"|\x1b\]52;c;[A-Za-z0-9+/=]*\x07|\x1b\]22;[a-z-]*\x07"  # copying, the pointer's shape
    r"|\x1b[78=>c]|\x1b\([AB0]"
)
"""The sequences that the app itself sends to a terminal."""


class Pty:
    """The app in a pseudo-terminal that records every byte."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env, close_fds=True)
        os.close(slave)
        self.output = ""
        self._rest = b""

    def _read(self) -> bool:
        """Read what arrives within 0.2 s. Return whether anything did."""
        if select.select([self._master], [], [], 0.2)[0]:
            try:
                self._rest += os.read(self._master, 65536)
            except OSError:
                return False
            whole = self._rest.decode("utf-8", "ignore")
            self._rest = self._rest[len(whole.encode()) :]
            self.output += whole
            return True
        return False

    def until(self, text: str) -> None:
        """Wait until the text is drawn after the end of the previous wait, and its frame is complete."""
        give_up_at, start = time.monotonic() + 60, len(self.output)
        while text not in self.output[start:]:
            assert time.monotonic() < give_up_at, (text, self.output[start:])
            self._read()
        while self._read() and time.monotonic() < give_up_at:
            pass

    def keys(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait(self) -> int:
        while self.process.poll() is None:
            self._read()
        return self.process.returncode


def test_nothing_raw_reaches_the_terminal(tmp_path) -> None:
    hostile = HOSTILE.encode("utf-8", "replace").decode()
    path = tmp_path / "tree.db"
    with Store.open(path) as store:
        conversation = store.create_conversation(hostile)
        rows = [NewNode(None, "user", hostile, id="u"), NewNode("u", "assistant", f"# {hostile}", id="a")]
        rows += [NewNode("u", "assistant", f"```{hostile}\n{hostile}\n```\n| {hostile} |\n| --- |\n| x |", id="b")]
        store.add_nodes(conversation.id, rows)
        store.set_current(conversation.id, "a")
        store.set_label("b", hostile)
    command = [sys.executable, "-m", "treechat", "--db", str(path), "-m", str(tmp_path / f"nothing{ESCAPES[:8]}")]
    folders = {f"TREECHAT_{name}_DIR": str(tmp_path / name) for name in ("DATA", "CACHE", "CONFIG")}
    env = os.environ | folders | {"HF_HUB_OFFLINE": "1", "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    # Other tests set sizes in the environment, which Textual prefers to the terminal's.
    env |= {"COLUMNS": "120", "LINES": "40"}
    terminal = Pty(command, env)
    try:
        terminal.until("there is no model")
        for keys, shown in (
            ("\t", "← here"),
            ("y", "Message copied"),
            ("j", "algo"),
            ("=", "in common"),
            ("q", "← here"),
            ("v", "alternatives"),
            ("q", "← here"),
            ("m", "Label"),
            ("\r", "← here"),
            ("\x0f", "Conversations"),
        ):
            terminal.keys(keys)
            terminal.until(shown)
        terminal.keys("\x11")
        assert terminal.wait() == 0
    finally:
        terminal.process.kill()
    assert "␛[6666z" in terminal.output and "‹202e›evil" in terminal.output
    assert "[6666z" not in SEQUENCE.sub("", terminal.output).replace("␛[6666z", "")
    assert "\x1b]52;c;aGFja2Vk" not in terminal.output
    left = SEQUENCE.sub("", terminal.output).replace("\r\n", "")
    assert not RAW.search(left), repr(left[max(RAW.search(left).start() - 40, 0) :][:80])
