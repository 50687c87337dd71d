"""Modal screens: the conversation below is dimmed like Textual does it, and redrawn when it changes."""

from __future__ import annotations

import pytest
from textual.renderables.background_screen import BackgroundScreen

from tests.fakes import scripted_model


@pytest.mark.parametrize("theme", ["textual-dark", "textual-light", "high-contrast"])
async def test_the_screen_below_is_dimmed_like_textual_does_it(open_app, theme) -> None:
    async with open_app(reply="*one* [two](https://example.org) `three`") as d:
        app = d.app
        app.theme = theme
        await d.send("hello 漢字")
        await d.press("tab", "f1")
        screen, below = app.screen, app.screen_stack[0]
        strips = screen.render().render_strips(80, 24, None, None)
        lines = app.console.render_lines(BackgroundScreen(below, screen.styles.background), pad=False)
        assert len(strips) == len(lines) == 24
        for strip, line in zip(strips, lines, strict=True):
            assert [(cell, s.style) for s in strip for cell in s.text] == [(c, s.style) for s in line for c in s.text]
        assert below._compositor.render_strips() != strips


async def test_a_reply_that_streams_below_a_modal_screen_is_visible(open_app) -> None:
    model = scripted_model("first and then last")
    model.engine.pause_at = 5
    async with open_app(model=model, size=(80, 30)) as d:
        d.app.composer.put("go")
        await d.press("enter")
        await d.until(lambda: "first" in d.screen_text(), "the beginning")
        await d.press("f2")
        assert len(d.app.screen_stack) == 2
        model.engine.gate.set()
        await d.until(lambda: "and then last" in d.screen_text() and len(d.app.screen_stack) == 2, "the end")


@pytest.mark.parametrize(("size", "name"), [((80, 24), "-narrow"), ((120, 40), "-wide")])
async def test_a_modal_screen_starts_with_the_class_of_its_size_and_follows_it(open_app, size, name) -> None:
    async with open_app(size=size) as d:
        await d.press("f2")
        assert d.app.screen.has_class(name)
        await d.pilot.resize_terminal(200 - size[0], 30)
        await d.until(lambda: not d.app.screen.has_class(name), "the other class")
