"""Text on every screen is readable: the contrast of every character, as WCAG 2 computes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
from rich.color import Color
from textual.app import App
from textual.geometry import Region

from tests.treechat.tui.seeded import CONFIG, SCREENS, seed, seeded_model, show
from treechat.config import Config

WANTED = {"dark": 4.5, "light": 4.5, "high-contrast": 7.0}
"""The contrast that WCAG requires for text (AA, AAA). Marks such as ● and ★ have it too."""

SHADES = "█▓▒░▀▄▌▐▏▎▍▋▊▉▁▂▃▅▆▇▔▕"


def luminance(color: Color) -> float:
    def linear(value: int) -> float:
        part = value / 255
        return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4

    red, green, blue = map(linear, color.get_truecolor())
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@cache
def contrast(one: Color, other: Color) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def is_frame(char: str) -> bool:
    """Whether a character is a line, a shade or part of a scrollbar. These only divide the screen."""
    return 0x2500 <= ord(char) < 0x25A0 or char in SHADES


def drawn(app: App) -> Iterator[tuple[Color, Color, str]]:
    """Yield the texts of the topmost window without frames: colour, background, and the line of each."""
    strips = app.screen._compositor.render_strips()
    window = Region(0, 0, *app.size)
    if len(app.screen_stack) > 1:
        window = Region.from_union([child.region for child in app.screen.children if child.display])
    for strip in strips[window.y : window.bottom]:
        part = strip.crop(window.x, window.right)
        for segment in part:
            style = segment.style
            if style is None or style.color is None or style.bgcolor is None:
                continue
            color, ground = (style.bgcolor, style.color) if style.reverse else (style.color, style.bgcolor)
            if any(not char.isspace() and not is_frame(char) for char in segment.text):
                yield color, ground, part.text.strip()


@pytest.mark.parametrize(
    ("theme", "no_color"),
    [
        ("dark", False),
        ("light", False),
        ("high-contrast", False),
        ("dark", True),
        pytest.param("light", True, marks=pytest.mark.slow),
    ],
)
async def test_every_character_can_be_read(open_app, monkeypatch, theme, no_color) -> None:
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    found: dict[tuple[str, str, str], tuple[float, str]] = {}
    async with open_app(size=(110, 34), model=seeded_model(), config=replace(CONFIG, theme=theme)) as d:
        await seed(d.app, d.pilot)
        for screen in SCREENS:
            await show(d.app, d.pilot, screen)
            for color, ground, line in drawn(d.app):
                if (value := contrast(color, ground)) < WANTED[theme]:
                    found.setdefault((screen, color.name, ground.name), (round(value, 1), line))
    assert not found, "\n".join(f"{key}: {value}" for key, value in found.items())


async def test_in_high_contrast_nothing_is_a_half_tone(open_app) -> None:
    async with open_app(size=(120, 30), config=Config(theme="high-contrast"), reply=lambda n: f"reply {n}") as d:
        await d.send("hello")
        await d.press("tab", "r")
        await d.until(lambda: len(d.app.chat.tree) == 3 and d.is_idle, "a fork")
        for pane in (d.app.tree_pane, d.app.transcript):
            for name in pane.COMPONENT_CLASSES:
                style = pane.style_of(name.partition("--")[2])
                if style.color is not None:
                    assert contrast(style.color, style.bgcolor or Color.from_rgb(0, 0, 0)) > 7, name
