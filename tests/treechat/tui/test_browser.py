"""The app in a real browser: `textual serve` draws it there, headless Chromium types into it."""

from __future__ import annotations

import asyncio
import base64
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from tests.treechat.shared import store_trip
from treechat.store import Store

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt install chromium)")

Found = TypeVar("Found")
CTRL, SHIFT = 2, 8
GIVE_UP_S = 60


class Page:
    """A tab of a running Chromium, driven by its DevTools protocol."""

    def __init__(self, socket) -> None:
        self._socket = socket
        self._num_calls = 0
        self.drawn = ""
        """Return all bytes that the app has sent to its terminal in the page."""

    async def call(self, method: str, **params: object) -> dict:
        self._num_calls += 1
        await self._socket.send_json({"id": self._num_calls, "method": method, "params": params})
        while True:
            answer = await self._socket.receive_json(timeout=GIVE_UP_S)
            if answer.get("id") == self._num_calls:
                assert "error" not in answer, (method, answer)
                return answer["result"]
            if answer["method"] == "Network.webSocketFrameReceived":
                frame = answer["params"]["response"]
                if frame["opcode"] == 2:
                    self.drawn += base64.b64decode(frame["payloadData"]).decode("utf-8", "replace")

    async def value(self, script: str) -> object:
        done = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        return done["result"].get("value")

    async def press(self, key: str, code: int, modifiers: int = 0) -> None:
        text = {"text": key} if len(key) == 1 and modifiers != CTRL else {}
        pressed = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **pressed, **text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    async def shows(self, text: str) -> None:
        """Wait until the app has drawn it again and sends nothing more. Each poll of the page reads new output."""
        give_up_at, before = time.monotonic() + GIVE_UP_S, ""
        while text not in self.drawn or before != self.drawn:
            assert time.monotonic() < give_up_at, (text, self.drawn)
            before = self.drawn
            await self.value("new Promise((done) => setTimeout(done, 200))")
        self.drawn = ""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextmanager
def running(command: list[str], env: dict[str, str]):
    process = subprocess.Popen(
        command, env=os.environ | env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


async def test_keys_clipboard_tabs_and_downloads_work_in_a_browser(tmp_path) -> None:
    aiohttp = pytest.importorskip("aiohttp", reason="needs textual-dev: `pip install --group dev`")
    pytest.importorskip("textual_serve", reason="needs textual-dev: `pip install --group dev`")
    path, profile, port = tmp_path / "tree.db", tmp_path / "profile", free_port()
    conversation_id = store_trip(path)
    folders = {f"TREECHAT_{name}_DIR": str(tmp_path / name) for name in ("DATA", "CACHE", "CONFIG")}
    # There is no such model. The tree can be read without one.
    app = [sys.executable, "-m", "treechat", "--db", str(path), "-m", str(tmp_path / "nothing")]
    textual = str(Path(sys.executable).with_name("textual"))
    server = [textual, "serve", "--port", str(port), "--command", shlex.join(app)]
    # Like a terminal without a clipboard: this test checks the browser's.
    environment = folders | {"HF_HUB_OFFLINE": "1", "TERM": "linux"}
    browser = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,800", "--remote-debugging-port=0",
        "--remote-allow-origins=*", "--disable-popup-blocking", f"--user-data-dir={profile}", "about:blank",
    ]  # fmt: skip
    address = f"http://localhost:{port}"
    with running(server, environment), running(browser, {}):
        async with aiohttp.ClientSession() as http, asyncio.timeout(4 * GIVE_UP_S):
            tabs = f"http://127.0.0.1:{await soon(lambda: devtools_port(profile))}/json"
            first = await soon(lambda: tab_of(http, tabs, "about:blank"))
            page = Page(await http.ws_connect(first["webSocketDebuggerUrl"], max_msg_size=0))
            await soon(lambda: answers(http, address))
            permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
            await page.call("Browser.grantPermissions", origin=address, permissions=permissions)
            await page.call("Network.enable")
            await page.call("Page.navigate", url=address)
            # Shown after everything else has started.
            await page.shows("there is no model")
            await page.value("document.querySelector('.xterm-helper-textarea').focus()")

            await page.press("Tab", 9)
            await page.shows("← here")
            await page.press("y", 89)
            await page.shows("Message copied")
            assert await page.value("navigator.clipboard.readText()") == "To **Siena**."

            # Keys that browsers use themselves reach the app.
            await page.press("f", 70, CTRL)
            await page.shows("Search this conversation")
            await page.press("Escape", 27)
            await page.shows("Siena")
            await page.press("E", 69, SHIFT)
            await page.shows("edit it here")
            await page.press("Escape", 27)
            await page.shows("enter sends")

            await page.press("Tab", 9)
            await page.shows("← here")
            await page.press("j", 74)
            await page.shows("2/2")
            await page.press("Enter", 13)
            await page.shows("enter sends")
            await page.press("Tab", 9)
            await page.shows("← here")
            await page.press("P", 80, SHIFT)
            opened = await soon(lambda: tab_of(http, tabs, "/download/"))
            tab = Page(await http.ws_connect(opened["webSocketDebuggerUrl"]))
            assert await soon(lambda: text_of(tab)) == "To *Lucca*."

            await page.call("Page.bringToFront")
            await page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
            await page.press("x", 88)
            await page.shows("This branch")
            await page.press("Enter", 13)
            exported = await soon(lambda: file_of(tmp_path, "a-trip*.md"))
    assert "To *Lucca*." in exported.read_text(encoding="utf-8")
    with Store.open(path) as store:
        assert store.conversation(conversation_id).current_id == "b"


async def soon(look: Callable[[], Awaitable[Found | None]]) -> Found:
    """Return the result of `look` as soon as there is one."""
    async with asyncio.timeout(GIVE_UP_S):
        while (found := await look()) is None:
            await asyncio.sleep(0.05)
    return found


async def text_of(page: Page) -> object | None:
    """Return None if nothing has arrived."""
    return await page.value("document.body?.innerText") or None


async def devtools_port(profile: Path) -> str | None:
    file = profile / "DevToolsActivePort"
    lines = file.read_text().split() if file.exists() else []
    return lines[0] if lines else None


async def answers(http, address: str) -> bool | None:
    try:
        async with http.get(address):
            return True
    except OSError:
        return None


async def tab_of(http, tabs: str, part: str) -> dict | None:
    async with http.get(tabs) as answer:
        return next((tab for tab in await answer.json() if tab["type"] == "page" and part in tab["url"]), None)


async def file_of(folder: Path, pattern: str) -> Path | None:
    return next((path for path in folder.glob(pattern) if path.stat().st_size), None)
