"""Run the app in a terminal, press keys in it and time them until their effect is painted. Run by tests/bench/ui.py.

    python -m tests.bench.ui_probe MODE DATABASE RESULT

MODE: `replies` (with the model), `stream`, `branches`, `many`, `deep`, `wide` or `chain`. RESULT receives lists
of seconds by name, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from textual import events
from textual.keys import key_to_character
from textual.widget import Widget

from tests.bench.ui_trees import long_reply
from tests.fakes import scripted_model
from treechat.chat.model.load import load_chat_model
from treechat.config import Config, Sampling
from treechat.tui.app import TreechatApp
from treechat.tui.screens.pick import PickScreen
from treechat_engine import EngineConfig

PATIENCE_S = 240.0
NUM_KEYS = 200
BETWEEN_S = 0.05
"""Seconds between two keys, the pace of a fast typist."""

REPLY_LEN = 32_000
WINDOW_LEN = 1_000
"""Characters of a long reply per measurement of the time per token."""

PROMPT = "Write a very long story about a lighthouse, with many chapters and every detail. Do not stop early."


class Probe:
    """An app and its measurements.

    seconds: by name of a measurement.
    memory: bytes of resident memory, by the moment.
    """

    def __init__(self, mode: str, path: Path) -> None:
        def load(progress):
            return load_chat_model(None, engine_config=EngineConfig(kv_tokens=16_000), progress=progress)

        def scripted(progress):
            return scripted_model(long_reply(REPLY_LEN))

        max_tokens = 1500 if mode == "replies" else 2 * REPLY_LEN
        config = Config(max_tokens=max_tokens, sampling=Sampling(temperature=0.8), seed=11)
        self.app = TreechatApp(path, config=config, load_model={"replies": load, "stream": scripted}.get(mode))
        self.seconds: dict[str, list[float]] = {}
        self.memory: dict[str, int] = {}
        self._mode = mode
        self._painted: Callable[[], None] = lambda: None
        self._report_paints()

    def _report_paints(self) -> None:
        """Have `_painted` called after each paint."""
        display = self.app._display

        def display_and_report(screen, renderable) -> None:
            display(screen, renderable)
            self._painted()

        self.app._display = display_and_report

    async def begin(self, _: object) -> None:
        """Measure in a worker, so that an error ends the app."""
        self.app.run_worker(self._run_all(), exit_on_error=True)

    async def _run_all(self) -> None:
        await asyncio.sleep(1)
        await getattr(self, f"measure_{self._mode}")()
        await self.app.action_quit()

    async def timed(self, name: str, act: Callable[[], object], is_done: Callable[[], object]) -> None:
        """Record the seconds from `act` to the end of the first paint after which `is_done` is true."""
        painted: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        def check() -> None:
            if not painted.done() and is_done():
                painted.set_result(time.perf_counter())

        self._painted = check
        started_at = time.perf_counter()
        act()
        self.seconds.setdefault(name, []).append(await asyncio.wait_for(painted, PATIENCE_S) - started_at)
        self._painted = lambda: None
        await asyncio.sleep(BETWEEN_S)

    def key(self, name: str) -> Callable[[], object]:
        name = "space" if name == " " else name
        return lambda: self.app.post_message(events.Key(name, key_to_character(name)))

    async def until(self, what: str, condition: Callable[[], object]) -> None:
        deadline = time.perf_counter() + PATIENCE_S
        while not condition():
            assert time.perf_counter() < deadline, f"never came true: {what}"
            await asyncio.sleep(0.02)

    async def stopped(self) -> None:
        """Stop the replies and wait until none streams."""
        self.app.replies.stop()
        await self.until("its stop", lambda: not self.app.chat.streaming)

    async def focus_on(self, widget: Widget) -> None:
        """Wait until the widget has the focus and this is drawn, so a key's time does not include it."""
        if not widget.has_focus:
            widget.focus()
            await self.until("the focus", lambda: widget.has_focus)
            await asyncio.sleep(BETWEEN_S)

    async def type_and_move(self, name: str, goes_on: Callable[[], object]) -> None:
        """Type letters into the composer and move the cursor in the transcript, ten keys each, while `goes_on`."""
        self.app.composer.put("")
        for i in range(NUM_KEYS):
            if not goes_on():
                break
            if i // 10 % 2 == 0:
                await self.focus_on(self.app.composer)
                n = len(self.app.composer.text)
                is_done = partial(lambda n: len(self.app.composer.text) > n, n)
                await self.timed(f"letter, {name}", self.key("abcdef "[i % 7]), is_done)
            else:
                await self.focus_on(self.app.transcript)
                is_done = partial(lambda before: self.app.cursor_id != before, self.app.cursor_id)
                await self.timed(f"move, {name}", self.key("hl"[i % 2]), is_done)
        self.app.composer.put("")

    async def measure_replies(self) -> None:
        """Measure keys while the app is idle, while one reply streams and while four do, with the real model."""
        self.memory["first frame"] = rss_bytes()
        await self.until("the model", lambda: self.app.chat.model is not None)
        self.memory["model loaded"] = rss_bytes()
        self.app.replies.send("Say hello.")
        await self.until("a first reply", lambda: any(reply.text for reply in self.app.chat.replies.values()))
        await self.stopped()
        await self.type_and_move("idle", lambda: True)
        self.app.replies.send(PROMPT)
        await self.until("a reply", lambda: len(self.app.chat.streaming) == 1)
        await self.type_and_move("1 reply streams", lambda: self.app.chat.streaming)
        await self.stopped()
        self.app.look_at(self.app.chat.current_id, anchor="end")
        self.app.replies.follow(self.app.chat.regenerate(str(self.app.chat.current_id), 4))
        await self.until("four replies", lambda: len(self.app.chat.streaming) == 4)
        await self.type_and_move("4 replies stream", lambda: len(self.app.chat.streaming) == 4)
        self.memory["after 4 replies"] = rss_bytes()

    async def measure_branches(self) -> None:
        """Measure moves between branches of 100 messages, drawn for the first time and again."""
        await self.focus_on(self.app.transcript)
        num = len(self.app.chat.tree.children("root"))
        for name, key in (("branch, first time", "J"), ("branch, again", "K"), ("branch, again", "J")):
            for _ in range(num - 1):
                before = self.app.view_id
                await self.timed(name, self.key(key), lambda n=before: self.app.view_id != n)

    async def measure_many(self) -> None:
        """Measure opening, listing, searching and scrolling with many conversations."""
        infos = self.app.store.conversations()
        self.memory["first frame"] = rss_bytes()
        for info in infos[10:40]:
            await self.timed(
                "open a conversation",
                lambda i=info: self.app.switch_to(i.id),
                lambda i=info: self.app.chat.conversation_id == i.id,
            )
        for _ in range(5):
            await self.timed("list conversations", self.key("ctrl+o"), self._is_picking)
            await self.timed("close the list", self.key("escape"), lambda: len(self.app.screen_stack) == 1)
        self.key("ctrl+g")()
        await self.until("a window", lambda: len(self.app.screen_stack) > 1)
        for letter in "lighthouse"[:5] + " bridge":
            before = self.app.screen.query_one("Input").value
            await self.timed(
                "search, per letter",
                self.key(letter),
                lambda b=before: self.app.screen.query_one("Input").value != b,
            )
        self.key("escape")()
        await self.until("the window closed", lambda: len(self.app.screen_stack) == 1)
        await self.turn_pages("scroll a page")
        self.memory["at the end"] = rss_bytes()

    async def turn_pages(self, name: str) -> None:
        await self.focus_on(self.app.transcript)
        for key in ("pageup", "pagedown") * 10:
            before = self.app.transcript.scroll_y
            if (key == "pageup" and before > 0) or (key == "pagedown" and not self.app.transcript.is_at_end):
                await self.timed(name, self.key(key), lambda b=before: self.app.transcript.scroll_y != b)

    async def measure_large(self) -> None:
        """Measure one very large conversation: moves between messages and rows, to root and leaf, pages and jumps."""
        mode = self._mode
        self.memory["first frame"] = rss_bytes()

        def moved():
            return partial(lambda before: self.app.cursor_id != before, self.app.cursor_id)

        await self.focus_on(self.app.transcript)
        for i in range(20):
            await self.timed(f"{mode}: move", self.key("kj"[i % 2]), moved())
        for i in range(10):
            await self.timed(f"{mode}: to the {'leaf' if i % 2 else 'root'}", self.key("gG"[i % 2]), moved())
        await self.turn_pages(f"{mode}: scroll a page")
        await self.focus_on(self.app.tree_pane)
        if len(self.app.tree_pane.rows) > 1:
            for i in range(20):
                await self.timed(f"{mode}: row", self.key("jk"[i % 2]), moved())
        ends = self.app.chat.tree.roots[0], str(self.app.chat.current_id)
        for i in range(6):
            await self.timed(f"{mode}: jump", partial(self.app.jump, ends[i % 2]), lambda: True)
        self.memory["at the end"] = rss_bytes()

    measure_deep = measure_wide = measure_chain = measure_large

    async def measure_stream(self) -> None:
        """Measure the CPU seconds per token (one character) at the start, middle and end of a 32 kB reply with code."""
        await self.until("the model", lambda: self.app.chat.model is not None)
        self.app.replies.send("Write.")
        await self.until("a reply", lambda: self.app.chat.replies)
        (reply,) = self.app.chat.replies.values()
        at, started_s = 0, time.process_time()
        while self.app.chat.streaming:
            await asyncio.sleep(0)
            if len(reply.text) >= at + WINDOW_LEN:
                place = ("beginning", "middle", "end")[min(3 * at // REPLY_LEN, 2)]
                used_s = time.process_time() - started_s
                self.seconds.setdefault(f"token of 32 kB, {place}", []).append(used_s / (len(reply.text) - at))
                at, started_s = len(reply.text), time.process_time()
        self.memory["at the end"] = rss_bytes()

    def _is_picking(self) -> bool:
        screen = self.app.screen
        return isinstance(screen, PickScreen) and len(screen.list.choices) > 1


def rss_bytes(pid: str | int = "self") -> int:
    """Return the resident memory of a process in bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


if __name__ == "__main__":
    probe = Probe(sys.argv[1], Path(sys.argv[2]))
    probe.app.run(auto_pilot=probe.begin)
    result = {"seconds": probe.seconds, "memory": probe.memory, "failed": str(probe.app._exception or "")}
    Path(sys.argv[3]).write_text(json.dumps(result), encoding="utf-8")
    sys.exit(bool(result["failed"]))
