"""What can be learnt of a message and taken from it: details, copies; and that all of it can be read."""

from __future__ import annotations

import pytest

from treechat.config import Config
from treechat.tree import Node, Turn
from treechat.tui.actions.output import lacks_clipboard
from treechat.tui.screens.details import DetailsScreen, facts_of


def test_details_say_what_is_known_and_nothing_else() -> None:
    turn = Turn("smol", {"temperature": 0.2, "top_k": 40}, 7, "stop", 10, 8, 0, 2, 30, 0.0, 0.5, 3.4)
    facts = dict(facts_of(Node("a1", "u1", "assistant"), turn, None))
    assert (facts["model"], facts["seed"], facts["temperature"], facts["top k"]) == ("smol", "7", "0.2", "40")
    assert (facts["· reused"], facts["· computed"], facts["speed"]) == ("8", "2", "10.0 tokens/s")
    assert "model" not in dict(facts_of(Node("u1", None, "user"), None, None))


async def test_details_of_a_reply_are_shown_on_demand(open_app) -> None:
    async with open_app(size=(100, 40)) as d:
        await d.send("hello")
        await d.press("tab", "D")
        assert isinstance(d.app.screen, DetailsScreen)
        await d.until(lambda: "scripted-135m" in d.screen_text() and "seed" in d.screen_text(), "model and seed")
        await d.press("escape")
        assert not isinstance(d.app.screen, DetailsScreen)


@pytest.mark.parametrize("env", [{"TERM": "linux"}, {"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}])
def test_terminals_that_take_no_copies_are_known(env) -> None:
    assert lacks_clipboard(env)
    assert not lacks_clipboard({"TERM": "xterm-256color"})


async def test_where_the_terminal_takes_no_copies_they_go_to_a_file(open_app, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "linux")
    monkeypatch.setenv("TREECHAT_CACHE_DIR", str(tmp_path))
    async with open_app(size=(120, 30)) as d:
        await d.send("hello")
        await d.press("tab", "y")
        assert (tmp_path / "copied.md").read_text() == "Hello *there*."
        await d.until(lambda: "takes no copies" in d.screen_text(), "where it went")


async def test_in_high_contrast_nothing_is_a_half_tone(open_app) -> None:
    async with open_app(size=(120, 30), config=Config(theme="high-contrast"), reply=lambda n: f"reply {n}") as d:
        await d.send("hello")
        await d.press("tab", "r")
        await d.until(lambda: len(d.app.chat.tree) == 3 and d.is_idle, "a fork")
        for pane in (d.app.tree_pane, d.app.transcript):
            for name in pane.COMPONENT_CLASSES:
                style = pane.styled(name.partition("--")[2])
                if style.color is not None:
                    assert contrast(style.color.triplet, style.bgcolor.triplet if style.bgcolor else (0, 0, 0)) > 7, (
                        name
                    )


def contrast(one, other) -> float:
    """The WCAG contrast ratio of two colours."""

    def luminance(rgb) -> float:
        parts = [c / 255 for c in rgb]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)
