"""An app with a scripted model, and a driver that presses keys and waits for conditions."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import pytest
import textual._wait as textual_wait
from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet

from tests.fakes import scripted_model
from treechat.tree import Node
from treechat.tui.app import TreechatApp


class Driver:
    """One running app: `press`, `type`, and `until` a condition holds."""

    def __init__(self, app: TreechatApp, pilot) -> None:
        self.app = app
        self.pilot = pilot

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        for number in range(1600):
            if condition():
                return
            # Other threads need time too, a lot of it on a busy machine.
            await self.pilot.pause(None if number < 100 else 0.02)
        raise AssertionError(f"never came true: {what or condition}")

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def send(self, text: str) -> Node:
        """Send a message, wait for the complete reply, and return it."""
        app = self.app
        before = len(app.chat.tree)
        app.composer.focus()
        app.composer.put(text)
        await self.press("enter")
        await self.until(lambda: len(app.chat.tree) > before and self.is_idle, f"a reply to {text!r}")
        return app.chat.tree[app.chat.current_id]

    @property
    def is_idle(self) -> bool:
        """Whether no reply is being written."""
        return not any(worker.group == "replies" and not worker.is_finished for worker in self.app.workers)

    @property
    def notices(self) -> str:
        """The texts of the visible notifications."""
        return "\n".join(notice.message for notice in self.app._notifications)

    def screen_text(self) -> str:
        """The text of the screen, line by line."""
        compositor = self.app.screen._compositor
        return "\n".join(strip.text for strip in compositor.render_strips())


@pytest.fixture(scope="session", autouse=True)
def parsed_styles():
    """Parse each style sheet once per theme and process, not once per app: this is a fifth of an app's start time."""
    parse = Stylesheet._parse_rules
    parsed: dict[Hashable, list[RuleSet]] = {}

    def parse_once(self, *args, **options):
        key = (tuple(self._variables.items()), args, tuple(options.items()))
        if key not in parsed:
            parsed[key] = parse(self, *args, **options)
        return parsed[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stylesheet, "_parse_rules", parse_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def short_idle_waits():
    """Let the pilot check four times as often whether the process is idle: most keys are handled within 5 ms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textual_wait, "SLEEP_GRANULARITY", 1 / 200)
        patch.setattr(textual_wait, "SLEEP_IDLE", 1 / 2000)
        yield


@pytest.fixture(autouse=True)
def data_dir(tmp_path_factory, monkeypatch):
    """A new data directory, so that the user's saved state is neither read nor changed."""
    folder = tmp_path_factory.mktemp("data")
    monkeypatch.setenv("TREECHAT_DATA_DIR", str(folder))
    return folder


@pytest.fixture
def open_app():
    """`async with open_app(...) as driver`: run the app in a terminal of a size, with a loaded model by default."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def opened(store_path=None, *, reply="Hello *there*.", size=(80, 24), model=None, **options):
        chosen = model or scripted_model(reply)
        options.setdefault("load_model", lambda progress: chosen)
        app = TreechatApp(store_path, **options)
        async with app.run_test(size=size, notifications=True) as pilot:
            driver = Driver(app, pilot)
            await driver.until(lambda: app.transcript.empty_text, "the first frame")
            if options["load_model"] is not None and "held" not in options.get("model_spec", ""):
                await driver.until(lambda: app.chat.model is not None, "the model")
            yield driver

    return opened
