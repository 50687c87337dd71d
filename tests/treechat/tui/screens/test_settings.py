"""Settings are checked, stored with the conversation or for one reply, and used for the next reply."""

from __future__ import annotations

from textual.widgets import Label

from treechat.config import Config, load_config
from treechat.store import Store
from treechat.tui.screens.settings import SettingsScreen


async def open_settings(d) -> SettingsScreen:
    await d.press("f3")
    await d.until(lambda: isinstance(d.app.screen, SettingsScreen) and d.app.screen.focused, "the settings")
    return d.app.screen


async def closed(d) -> None:
    await d.until(lambda: not isinstance(d.app.screen, SettingsScreen), "the screen closed")


async def test_kept_settings_apply_to_the_next_reply_and_are_stored_with_the_conversation(open_app, tmp_path) -> None:
    path = tmp_path / "s.db"
    async with open_app(path) as d:
        await d.send("hello")
        screen = await open_settings(d)
        assert screen.field("top_p").placeholder == "0.95"
        await d.press(*"0.25", "tab", *"7")
        screen.field("repetition_penalty").value = "1.2"
        screen.field("seed").value = "41"
        await d.press("enter")
        await closed(d)
        reply = await d.send("again")
        turn = d.app.chat.turn(reply.id)
        assert turn.sampling["temperature"] == 0.25
        assert (turn.sampling["max_tokens"], turn.sampling["repetition_penalty"], turn.seed) == (7, 1.2, 41)
        await d.press("tab", "tab", "D")
        await d.until(lambda: "repetition penalty" in d.screen_text() and "0.25" in d.screen_text(), "its details")
    async with open_app(path) as d:
        assert d.app.chat.own == {"temperature": 0.25, "max_tokens": 7, "repetition_penalty": 1.2, "seed": 41}
        await d.press("ctrl+n")
        assert d.app.chat.own == {}


async def test_once_holds_for_one_reply(open_app) -> None:
    async with open_app() as d:
        await d.send("hello")
        screen = await open_settings(d)
        screen.field("seed").value = "5"
        await d.press("ctrl+t")
        await closed(d)
        first = await d.send("once")
        second = await d.send("twice")
        assert d.app.chat.turn(first.id).seed == 5
        assert d.app.chat.turn(second.id).seed != 5
        assert d.app.chat.own == {}


async def test_an_invalid_value_is_reported_and_not_kept(open_app) -> None:
    async with open_app() as d:
        screen = await open_settings(d)
        screen.field("top_p").value = "1.5"
        await d.press("enter")
        assert d.app.screen is screen
        assert screen.focused is screen.field("top_p")
        assert "top_p must be a number above 0 and up to 1" in str(screen.query_one("#wrong", Label).content)
        screen.field("top_p").value = "0.5"
        await d.press("enter")
        await closed(d)
        assert d.app.chat.settings.sampling.top_p == 0.5


async def test_escape_changes_nothing(open_app) -> None:
    async with open_app() as d:
        screen = await open_settings(d)
        screen.field("top_p").value = "0.5"
        await d.press("escape")
        await closed(d)
        assert d.app.chat.own == {}


async def test_settings_of_a_conversation_that_is_not_written_yet_are_written_with_it(open_app, tmp_path) -> None:
    path = tmp_path / "s.db"
    async with open_app(path) as d:
        screen = await open_settings(d)
        screen.prompt.load_text("Be [b]terse[/b].")
        screen.field("top_k").value = "9"
        await d.press("ctrl+s")
        await closed(d)
        await d.send("hello")
        assert [node.role for node in d.app.chat.path()] == ["system", "user", "assistant"]
        assert d.app.chat.text(d.app.chat.path()[0].id) == "Be [b]terse[/b]."
    with Store.open(path) as store:
        meta = store.conversation(store.conversations()[0].id).meta
        assert meta == {"settings": {"top_k": 9, "system_prompt": "Be [b]terse[/b]."}}


async def test_a_changed_system_prompt_starts_a_new_root_and_backspace_returns(open_app) -> None:
    async with open_app(config=Config(system_prompt="one")) as d:
        app = d.app
        reply = await d.send("hello")
        screen = await open_settings(d)
        assert screen.prompt.text == "one"
        screen.prompt.load_text("two")
        await d.press("ctrl+s")
        await closed(d)
        assert app.chat.text(app.chat.current_id) == "two"
        await d.send("hello")
        assert [app.chat.text(i) for i in app.chat.tree.roots] == ["one", "two"]
        await d.press("tab", "backspace")
        await d.until(lambda: app.chat.current_id == reply.id, "the branch before")
        screen = await open_settings(d)
        assert screen.prompt.text == "one"
        screen.prompt.load_text("")
        await d.press("ctrl+s")
        await closed(d)
        await d.send("no prompt")
        assert app.chat.path()[0].role == "user"


async def test_a_preset_is_saved_used_and_loaded_again(open_app, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TREECHAT_CONFIG_DIR", str(tmp_path))
    (tmp_path / "config.toml").write_text('# mine\n[presets.cold]\ntemperature = 0\nsystem_prompt = "Be exact."')
    async with open_app(config=load_config()) as d:
        screen = await open_settings(d)
        await d.press("ctrl+o", *"cold", "enter")
        await d.until(lambda: screen.field("temperature").value == "0.0", "the preset's values")
        assert screen.prompt.text == "Be exact."
        screen.field("max_tokens").value = "12"
        await d.press("f2", *"cold", "enter")
        await d.until(lambda: "already" in str(screen.query_one("#wrong", Label).content), "the name is taken")
        await d.press("f2", *"short", "enter")
        await d.until(lambda: "short" in d.app.config.presets, "the new preset")
        await d.press("ctrl+o", *"defaults", "enter")
        await d.until(lambda: screen.field("max_tokens").value == "", "the defaults")
    assert load_config().presets["short"] == {"system_prompt": "Be exact.", "temperature": 0.0, "max_tokens": 12}
    assert (tmp_path / "config.toml").read_text().startswith("# mine\n[presets.cold]\n")


async def test_hostile_meta_is_left_out(open_app, tmp_path) -> None:
    path = tmp_path / "s.db"
    with Store.open(path) as store:
        own = {"temperature": "hot", "top_k": -1, "top_p": 0.5, "unknown": 1, "max_tokens": True, "seed": 10**30}
        conversation = store.create_conversation("x", meta={"settings": own})
        store.add_node(conversation.id, None, "user", "hello")
    async with open_app(path) as d:
        assert d.app.chat.own == {"top_p": 0.5}
