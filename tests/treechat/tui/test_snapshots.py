"""Screens equal their committed snapshots. `make snapshots` writes new ones; read the diff before committing it.

A snapshot holds texts and styles of cells, not a picture. It has no fonts and no ids, so a patch release of Textual
does not change it.
"""

from __future__ import annotations

import os
import re
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
from rich.style import Style

from tests.treechat.tui.seeded import CONFIG, seed, seeded_model, show

ROOT = Path(__file__).resolve().parents[3]
FOLDER = Path(__file__).parent / "snapshots"
SCREENS = ("main", "tokens", "columns", "compare", "settings", "memory", "palette", "help", "conversations")
STYLED = ("main", "tokens")
LETTERS = ".abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def same_as(name: str, drawn: str) -> None:
    """Compare with the snapshot of that name, or write it if UPDATE_SNAPSHOTS is set."""
    path = FOLDER / f"{name}.txt"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(drawn, encoding="utf-8")
    assert path.exists(), f"{path.name} is missing: make snapshots"
    assert drawn == path.read_text(encoding="utf-8"), f"{name} looks different: if it should, make snapshots"


def texts(app) -> str:
    """Return the screen's lines."""
    return "".join(f"{strip.text.rstrip()}\n" for strip in app.screen._compositor.render_strips())


def looks(app) -> str:
    """Return the screen's styles: a letter per cell, then what each letter means. The most frequent style is a dot."""
    rows = [
        [_name(segment.style) for segment in strip for _ in range(segment.cell_length)]
        for strip in app.screen._compositor.render_strips()
    ]
    cells = [name for row in rows for name in row]
    names = sorted(dict.fromkeys(cells), key=lambda name: (-cells.count(name), name))
    letters = dict(zip(names, LETTERS, strict=False))
    assert len(letters) == len(names), "more styles than letters"
    grid = "".join("".join(letters[name] for name in row) + "\n" for row in rows)
    return grid + "\n" + "".join(f"{letter} {name}\n" for name, letter in letters.items())


def _name(style: Style | None) -> str:
    if style is None:
        return "none"
    flags = [name for name in ("bold", "italic", "underline", "reverse", "strike") if getattr(style, name)]
    color = style.color.name if style.color else "default"
    ground = style.bgcolor.name if style.bgcolor else "default"
    return " ".join([*flags, color, "on", ground])


async def test_the_readmes_picture_is_of_the_app_as_it_is() -> None:
    made = runpy.run_path(str(ROOT / "assets" / "make_screenshots.py"))
    words = [
        re.sub(r"<[^>]*>", "", svg) for svg in (await made["picture"](), made["TARGET"].read_text(encoding="utf-8"))
    ]
    assert words[0] == words[1], "run python assets/make_screenshots.py, and look at it"


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
async def test_each_screen_reads_as_it_did(open_app, size) -> None:
    async with open_app(size=size, model=seeded_model(), config=CONFIG) as d:
        await seed(d.app, d.pilot)
        drawn = {}
        for screen in SCREENS:
            await show(d.app, d.pilot, screen)
            drawn[screen] = texts(d.app)
    for screen, text in drawn.items():
        same_as(f"{screen}-{size[0]}x{size[1]}", text)


@pytest.mark.parametrize("theme", ["dark", "light", "high-contrast", "NO_COLOR"])
async def test_each_theme_looks_as_it_did(open_app, monkeypatch, theme) -> None:
    if theme == "NO_COLOR":
        monkeypatch.setenv("NO_COLOR", "1")
    config = replace(CONFIG, theme="dark" if theme == "NO_COLOR" else theme)
    async with open_app(size=(80, 24), model=seeded_model(), config=config) as d:
        await seed(d.app, d.pilot)
        drawn = {}
        for screen in STYLED:
            await show(d.app, d.pilot, screen)
            drawn[screen] = looks(d.app)
    for screen, look in drawn.items():
        same_as(f"{screen}-{theme}", look)
