"""Keys and theme of the configuration are checked and applied."""

from __future__ import annotations

import pytest

from treechat.config import Config, load_config
from treechat.errors import ConfigError
from treechat.tui.bindings import KEYS
from treechat.tui.keymap import check_appearance, textual_keymap
from treechat.tui.themes import theme_name


def refused(tmp_path, text: str) -> ConfigError:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        check_appearance(load_config(path), path)
    return caught.value


def test_what_is_unknown_is_named_with_its_line_and_nearest_match(tmp_path) -> None:
    error = refused(tmp_path, 'seed = 1\ntheme = "high-contrst"\n')
    assert "line 2: unknown theme" in error.message
    assert "'high-contrast'" in error.hint
    error = refused(tmp_path, '[keymap]\n"do.edit" = "f5"\n"do.regenrate" = "f6"\n')
    assert "line 3: no binding is called 'do.regenrate'" in error.message
    assert "'do.regenerate'" in error.hint
    error = refused(tmp_path, '[keymap]\n"do.edit" = "control+e"\n')
    assert "line 2: 'control+e' is not a key" in error.message


def test_a_key_that_would_do_two_things_in_one_place_is_refused(tmp_path) -> None:
    error = refused(tmp_path, '[keymap]\n"do.edit" = "r"\n')
    assert "r is bound to both do.edit and do.regenerate" in error.message
    assert "Give do.regenerate" in error.hint
    error = refused(tmp_path, '[keymap]\n"composer.send" = "ctrl+n"\n')
    assert "ctrl+n is bound to both" in error.message


def test_swapped_keys_and_characters_are_fine(tmp_path) -> None:
    keymap = {"do.edit": "r, é", "do.regenerate": "e", "move.find": "?", "pane.help": "/", "do.label": ","}
    check_appearance(Config(theme="light", keymap=keymap), tmp_path / "absent.toml")
    assert textual_keymap(keymap) == {
        "do.edit": "r,é",
        "do.regenerate": "e",
        "move.find": "question_mark",
        "pane.help": "slash",
        "do.label": "comma",
    }


def test_the_keys_as_they_are_pass(tmp_path) -> None:
    check_appearance(Config(keymap={key.id: key.keys for key in KEYS}), tmp_path / "absent.toml")


async def test_the_configured_key_acts_and_the_default_one_does_not(open_app) -> None:
    async with open_app(config=Config(keymap={"do.bookmark": "?", "pane.help": "f9"})) as d:
        reply = await d.send("hello")
        await d.press("tab", "tab", "b")
        assert not d.app.chat.tree[reply.id].bookmarked
        await d.press("question_mark")
        assert d.app.chat.tree[reply.id].bookmarked


@pytest.mark.parametrize(("theme", "name"), [("light", "light"), ("dark", "textual-dark"), ("nord", "nord")])
async def test_the_theme_is_in_force(open_app, theme, name) -> None:
    async with open_app(config=Config(theme=theme)) as d:
        assert d.app.theme == name


def test_auto_follows_what_the_terminal_says_of_its_background() -> None:
    assert theme_name("auto", {"COLORFGBG": "0;15"}) == "light"
    assert theme_name("auto", {"COLORFGBG": "15;default;0"}) == "textual-dark"
    assert theme_name("auto", {}) == "textual-dark"


async def test_the_theme_chosen_in_the_app_is_there_at_the_next_start(open_app, data_dir) -> None:
    async with open_app() as d:
        await d.press("ctrl+p", *"theme", "enter")
        await d.until(lambda: "gruvbox" in d.screen_text(), "the themes")
        await d.press(*"nord", "enter")
        await d.until(lambda: d.app.theme == "nord", "the theme")
    async with open_app() as d:
        assert d.app.theme == "nord"
    for damaged in ("{", "[]", '{"theme": 3}', '{"theme": "gone"}', "[" * 100_000):
        (data_dir / "state.json").write_text(damaged)
        async with open_app() as d:
            assert d.app.theme == "textual-dark"


async def test_a_theme_of_the_configuration_wins_and_its_file_stays_as_it_is(open_app, data_dir) -> None:
    async with open_app(config=Config(theme="auto"), size=(100, 30)) as d:
        d.app.theme = "nord"
        await d.until(lambda: 'the configuration says theme = "auto"' in d.screen_text(), "what holds")
    assert not (data_dir / "state.json").exists()
    async with open_app(config=Config(theme="light")) as d:
        assert d.app.theme == "light"
