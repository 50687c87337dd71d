"""The token view and the split screen by keys: doubtful tokens are marked, alternatives looked up, enter forks."""

from __future__ import annotations

from tests.fakes import scripted_model
from treechat.tui.screens.split import SplitScreen
from treechat.tui.screens.token_text import TokenText
from treechat.tui.screens.tokens import TokenScreen


def doubtful_model():
    model = scripted_model(lambda n: "To Rome by Train" if n == 0 else " and on")
    model.engine.logprob = lambda token_id: -1.0 if token_id in (ord("R"), ord("T")) else -0.01
    return model


async def to_tokens(d) -> TokenScreen:
    await d.send("Where?")
    await d.press("tab", "tab", "t")
    await d.until(lambda: isinstance(d.app.screen, TokenScreen) and d.app.screen.view.rows, "the token view")
    return d.app.screen


async def test_doubtful_tokens_are_walked_and_marked_not_by_colour_alone(open_app) -> None:
    async with open_app(model=doubtful_model(), size=(120, 30)) as d:
        screen = await to_tokens(d)
        await d.until(lambda: screen.index == 0, "the first doubt: the T of To")
        await d.press("n")
        assert screen.pieces[screen.index].text == "R"
        styles = {part.text: part.style for part in screen.query_one(TokenText).render_line(0) if part.style}
        assert styles["T"].underline and not styles["o"].underline
        await d.press("n", "N")
        assert screen.pieces[screen.index].text == "R"
        await d.until(lambda: "36.79%" in d.screen_text() and "computed 1" in d.screen_text(), "its alternatives")


async def test_enter_on_an_alternative_forks_there_and_continues(open_app) -> None:
    async with open_app(model=doubtful_model()) as d:
        screen = await to_tokens(d)
        reply = d.app.chat.current_id
        await d.press("n")
        await d.until(lambda: len(screen.choices) == 4, "alternatives")
        await d.press("up", "enter")
        await d.until(lambda: len(d.app.chat.tree) == 3 and d.is_idle, "the fork")
        assert d.app.chat.text(d.app.chat.current_id) == "To y and on"
        assert d.app.chat.text(reply) == "To Rome by Train"
        assert d.app.cursor_id == d.app.chat.current_id
        await d.until(lambda: "⋔ 2/2" in d.screen_text(), "the sibling's mark")


async def test_enter_on_the_token_itself_continues_after_it(open_app) -> None:
    async with open_app(model=doubtful_model()) as d:
        screen = await to_tokens(d)
        await d.press("g", "right")
        await d.until(lambda: len(screen.choices) == 4, "alternatives")
        await d.press("enter")
        await d.until(lambda: len(d.app.chat.tree) == 3 and d.is_idle, "the fork")
        assert d.app.chat.text(d.app.chat.current_id).startswith("To and on")


async def test_closing_the_token_view_changes_nothing(open_app) -> None:
    async with open_app(model=doubtful_model()) as d:
        await to_tokens(d)
        await d.press("escape")
        assert not isinstance(d.app.screen, TokenScreen)
        assert len(d.app.chat.tree) == 2


async def test_a_reply_is_split_at_a_word_and_continues_from_the_kept_words(open_app) -> None:
    async with open_app(model=doubtful_model()) as d:
        await d.send("Where?")
        await d.press("tab", "tab", "s")
        await d.until(lambda: isinstance(d.app.screen, SplitScreen) and d.app.screen.view.rows, "the split view")
        await d.press("g", "right", "enter")
        await d.until(lambda: len(d.app.chat.tree) == 3 and d.is_idle, "the fork")
        assert d.app.chat.text(d.app.chat.current_id) == "To Rome and on"


async def test_the_first_part_of_an_own_message_is_taken_for_editing(open_app) -> None:
    async with open_app() as d:
        await d.send("four days in Italy")
        await d.press("tab", "tab", "k", "s")
        await d.until(lambda: isinstance(d.app.screen, SplitScreen) and d.app.screen.view.rows, "the split view")
        await d.press("G", "enter")
        assert d.app.composer.text == "four days in" and d.app.composer.has_focus
        await d.press(*" May")
        await d.press("enter")
        await d.until(lambda: len(d.app.chat.tree.roots) == 2 and d.is_idle, "the sibling")
