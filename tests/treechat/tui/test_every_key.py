"""Every key and every command of the palette has a visible effect in its place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.screen import Screen

from tests.treechat.tui.conftest import Driver
from tests.treechat.tui.seeded import CONFIG, SCREENS, press, seed, seeded_model, settle, show
from treechat.chat.session import Chat
from treechat.tui.bindings import KEYS

ELSEWHERE = {
    "app.quit": "test_hostile.py::test_nothing_raw_reaches_the_terminal",
    "import.stop": "screens/test_importing.py::test_the_app_is_usable_during_an_import",
    "import.go": "screens/test_importing.py::test_a_file_is_checked_then_imported_and_opened",
}
"""Keys that end the app, or need more than the seeded conversation: the test that presses each."""

FIRST: dict[str, tuple[str, ...]] = {
    "move.next": ("g",),
    "move.child": ("g",),
    "move.next_fork": ("g",),
    "move.root": ("G",),
    "move.leaf": ("g",),
    "move.here": ("g",),
    "move.back": ("g", "enter", "escape", "escape"),
    "move.fold": ("g",),
    "move.unhoist": ("z",),
    "move.previous_sibling": ("J",),
    "do.compare": ("j",),
    "do.next_bookmark": ("g",),
    "do.undo": ("b",),
    "do.redo": ("b", "u"),
    "token.previous": ("G",),
    "token.up": ("G",),
    "token.next_doubt": ("g",),
    "token.previous_doubt": ("G",),
    "token.first": ("G",),
    "token.other_up": ("j",),
    "split.first": ("G",),
    "columns.previous": ("l",),
    "columns.up": ("G",),
    "columns.page_up": ("G",),
    "columns.first": ("G",),
    "compare.up": ("G",),
    "compare.page_up": ("G",),
    "compare.first": ("G",),
    "compare.previous": ("G",),
    "memory.up": ("G",),
    "memory.page_up": ("G",),
    "memory.first": ("G",),
    "memory.open": ("h",),
    "settings.save": (),
    "list.previous": ("down",),
    "import.up": ("down",),
    "app.focus_back": ("tab",),
    "app.stop": ("j", "tab"),
}
"""Keys to press first, if the tested key would have no effect otherwise."""

PLACES: dict[str, str] = {
    "panes": "main",
    "everywhere": "main",
    "composer": "composer",
    "list": "export",
    "page": "help",
}
"""The screen on which a key is tested, if its name is not that of the place."""


async def _composer(app, pilot) -> None:
    app.to_composer()
    await settle(pilot)


async def _import(app, pilot) -> None:
    await press(pilot, "f5")
    await settle(pilot)


MORE: dict[str, Callable[..., Awaitable[None]]] = {"composer": _composer, "import": _import}


def seen(app) -> tuple:
    """Return everything that a person can notice: texts and styles, the focus, the clipboard, the bell."""
    strips = app.screen._compositor.render_strips()
    drawn = tuple((segment.text, segment.style) for strip in strips for segment in strip)
    where = (len(app.screen_stack), app.focused and app.focused.id, app.cursor_id, app.view_id, app.chat.current_id)
    return drawn, where, app.clipboard, app.chat.tree.version, app.composer.text, app._rung


@pytest.fixture
async def app_of_keys(request, open_app, monkeypatch, tmp_path):
    """Run the seeded app in a new folder. The bell is an answer too, so it is counted."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.json").write_text("{}")
    (tmp_path / "two.json").write_text("{}")
    for name in ("CONFIG", "CACHE"):
        monkeypatch.setenv(f"TREECHAT_{name}_DIR", str(tmp_path / name))
    monkeypatch.setenv("XDG_DOWNLOAD_DIR", str(tmp_path))
    monkeypatch.setenv("PAGER", "true")
    monkeypatch.setenv("EDITOR", "true")
    async with open_app(size=request.param, model=seeded_model(), config=CONFIG) as d:
        d.app._rung = 0

        def bell() -> None:
            d.app._rung += 1

        monkeypatch.setattr(d.app, "bell", bell)
        await seed(d.app, d.pilot)
        yield d


BEGINNING: dict[str, tuple[str, ...]] = {
    "tokens": ("g",),
    "compare": ("g",),
    "split": ("g",),
    "columns": ("g", "h", "h", "h"),
    "memory": ("g",),
    "page": ("home",),
}
"""Keys that lead to the beginning of a window. A window that then looks as it did at first is used again."""


class Places:
    """The way to one place. A window that is still open and unchanged stays open."""

    def __init__(self, driver: Driver, place: str) -> None:
        self._driver = driver
        self._place = place
        self._screen: Screen | None = None
        self._first: tuple | None = None

    async def go(self) -> None:
        app, pilot = self._driver.app, self._driver.pilot
        if self.is_open:
            await press(pilot, *BEGINNING[self._place])
            if self.is_open and seen(app) == self._first:
                return
        name = PLACES.get(self._place, self._place)
        await show(app, pilot, name if name in SCREENS else "main")
        if name in MORE:
            await MORE[name](app, pilot)
        await settle(pilot)
        self._screen, self._first = app.screen, seen(app)

    @property
    def is_open(self) -> bool:
        app = self._driver.app
        return self._place in BEGINNING and app.screen is self._screen and len(app.screen_stack) == 2


async def changes(d: Driver, do: Callable[[], Awaitable[None]]) -> bool:
    """Return whether `do` has a visible effect."""
    await settle(d.pilot)
    before = seen(d.app)
    await do()
    for number in range(400):
        await d.pilot.pause(0 if number < 20 else 0.02)
        if seen(d.app) != before:
            return True
    return False


async def restore(d: Driver, chat: Chat, here: str | None) -> None:
    """End everything that was started, and go back to the conversation and its node."""
    app = d.app
    # Wait until a new window is complete before closing it, as the app's key queue does.
    await settle(d.pilot)
    while len(app.screen_stack) > 1:
        app.pop_screen()
    app.action_hide_help_panel()
    app.screen.minimize()
    for node_id in list(app.chat.replies):
        app.chat.stop(node_id)
    await d.until(lambda: d.is_idle, "the end of what is written")
    app.editing_id = None
    app.composer.put("")
    if app.chat is not chat:
        app.switch_to(chat.conversation_id)
    app.chat.jump(here)


def sizes(place: str) -> tuple[int, int]:
    """Return the screen's size. In places that scroll, the text must not fit."""
    return (60, 12) if place in ("compare", "columns", "page") else (80, 24)


@pytest.mark.parametrize(
    ("place", "app_of_keys"),
    [(place, sizes(place)) for place in dict.fromkeys(key.place for key in KEYS)],
    indirect=["app_of_keys"],
)
async def test_each_key_does_something_in_its_place(app_of_keys, place) -> None:
    d = app_of_keys
    idle = []
    tried = [one for one in KEYS if one.place == place and one.id not in ELSEWHERE]
    way = Places(d, place)
    for key, name in ((one, name) for one in tried for name in one.keys.split(",")):
        chat, here = d.app.chat, d.app.chat.current_id
        await way.go()
        await press(d.pilot, *FIRST.get(key.id, ()))
        if not await changes(d, lambda name=name: press(d.pilot, name)):
            idle.append(f"{name} ({key.id})")
        if not way.is_open:
            await restore(d, chat, here)
    assert not idle


@pytest.mark.parametrize("app_of_keys", [(80, 24)], indirect=True)
async def test_each_command_of_the_palette_does_something(app_of_keys) -> None:
    d = app_of_keys
    of_title = {key.title: key for key in KEYS if key.in_palette}
    idle = []
    for command in list(d.app.get_system_commands(d.app.screen)):
        key = of_title.get(command.title)
        assert command.help
        if command.title in ("Quit",):
            continue
        chat, here = d.app.chat, d.app.chat.current_id
        await Places(d, "panes").go()
        await press(d.pilot, *(FIRST.get(key.id, ()) if key else ()))

        async def run(command=command) -> None:
            command.callback()

        if not await changes(d, run):
            idle.append(command.title)
        await restore(d, chat, here)
    assert not idle


def test_what_is_pressed_elsewhere_is_pressed_there() -> None:
    assert {*ELSEWHERE, *FIRST} <= {key.id for key in KEYS}
    for where in ELSEWHERE.values():
        file, _, name = where.partition("::")
        assert f"def {name}" in (Path(__file__).parent / file).read_text(encoding="utf-8"), where
