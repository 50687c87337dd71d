"""A conversation's model: saved, listed by f4, set in the settings, and replaced for one reply."""

from __future__ import annotations

import pytest

from tests.fakes import scripted_model
from tests.treechat.tui.services.test_model_loader import choose, other_model
from treechat.models import InstalledModel
from treechat.store import NewNode, Store
from treechat.tree import Turn
from treechat.tui.saved_state import model_specs, save_model_spec
from treechat.tui.screens.settings import SettingsScreen


@pytest.fixture
def models(monkeypatch, tmp_path):
    """Return a `load_named` that makes a new model at each load, and lists them by name in `made`. One is installed."""
    second = InstalledModel("second", tmp_path, 2_000_000_000, "dir:/x", False)
    monkeypatch.setattr("treechat.models.installed", lambda: [second])
    made = {}

    def load_named(spec, progress):
        name = {None: "first", "/models/second": "second"}.get(spec, spec)
        model = scripted_model(f"from {name}", name) if name != "second" else other_model("from second", "second")
        made.setdefault(name, []).append(model)
        return model

    load_named.made = made
    return load_named


async def settings(d) -> SettingsScreen:
    await d.press("f3")
    await d.until(lambda: isinstance(d.app.screen, SettingsScreen) and d.app.screen.focused, "the settings")
    return d.app.screen


def roomy(d):
    d.app.models.lacks_room = lambda spec, progress: False


async def test_f4_lists_the_model_that_wrote_the_branch_first(open_app, tmp_path, models) -> None:
    path = tmp_path / "s.db"
    with Store.open(path) as store:
        conversation = store.create_conversation("x")
        store.add_nodes(
            conversation.id,
            [
                NewNode(None, "user", "a question " * 40, id="u"),
                NewNode("u", "assistant", "an answer " * 40, id="a", turn=Turn("elsewhere")),
            ],
        )
        store.set_current(conversation.id, "a")
    save_model_spec("elsewhere", "/models/second")
    first = scripted_model("x", "first")
    async with open_app(path, model=first, load_named=models, size=(120, 40)) as d:
        roomy(d)
        await d.until(lambda: "elsewhere wrote this branch; first is in use." in d.notices, "who wrote it")
        assert "f4, enter loads elsewhere" in d.notices
        await d.press("f4")
        await d.until(lambda: "wrote this branch" in d.screen_text(), "the list")
        await d.press("enter")
        await d.until(lambda: d.app.chat.model.name == "second", "the model by what loads it")
        assert d.app.models.spec == "/models/second"
    assert model_specs() == {"elsewhere": "/models/second", "second": "/models/second"}


async def test_a_conversations_model_is_set_in_the_settings_and_offered_at_the_next_start(
    open_app,
    tmp_path,
    models,
) -> None:
    path = tmp_path / "s.db"
    first = scripted_model("from first", "first")
    async with open_app(path, model=first, load_named=models, size=(100, 30)) as d:
        roomy(d)
        await d.send("hello")
        screen = await settings(d)
        assert screen.field("model").placeholder == "first"
        screen.field("model").value = "/no/such/model"
        await d.press("enter")
        assert "there is no model /no/such/model" in str(screen.query_one("#wrong").content)
        await d.press("f4")
        await d.until(lambda: d.app.screen is not screen, "the list")
        await d.press(*"second", "enter")
        await d.until(lambda: screen.field("model").value == "second", "the choice")
        await d.press("enter")
        await d.until(lambda: d.app.chat.model.name == "second" and first.engine.is_closed, "the second model")
        assert d.app.chat.text((await d.send("again")).id) == "from second"
    with Store.open(path) as store:
        assert store.conversation(store.conversations()[0].id).meta == {"settings": {"model": "second"}}
    again = scripted_model("x", "first")
    async with open_app(path, model=again, load_named=models, size=(100, 30)) as d:
        roomy(d)
        await d.until(lambda: "second is set for this conversation; first is in use." in d.notices, "what it is set to")
        await d.press("f4")
        await d.until(lambda: d.app.screen is not d.app.main_screen, "the list")
        await d.press("enter")
        await d.until(lambda: d.app.chat.model.name == "second", "the second model")
        # A model chosen later becomes the conversation's own model.
        await choose(d, *"third")
        await d.until(lambda: d.app.chat.model.name == "third", "the third")
        assert d.app.chat.own == {"model": "third"}


async def test_after_a_model_for_one_reply_the_other_is_used_again_and_still_warm(
    open_app, models, monkeypatch
) -> None:
    first = scripted_model("from first", "first")
    async with open_app(model=first, load_named=models, size=(120, 30)) as d:
        app = d.app
        roomy(d)
        await d.send("hello")
        screen = await settings(d)
        screen.field("model").value = "second"
        said, say = [], app.say
        monkeypatch.setattr(app, "say", lambda text: (said.append(text), say(text)))
        await d.press("ctrl+t")
        await d.until(lambda: app.chat.model.name == "second", "the second model")
        assert "second writes the next reply, then first is used again" in said
        assert "second · once" in d.screen_text()
        await d.until(lambda: "second is loaded for one reply; it computes" in d.notices, "what it costs")
        second = app.chat.model
        reply = await d.send("one by the second")
        assert (app.chat.text(reply.id), app.chat.turn(reply.id).model) == ("from second", "second")
        await d.until(lambda: second.engine.is_closed, "the second is let go")
        assert app.chat.model is first and not first.engine.is_closed
        assert app.chat.own == app.chat.next_reply_values == {}
        await d.until(lambda: "second wrote this branch; first is in use." in d.notices, "who wrote the last one")
        assert "Continuing with first computes" in d.notices
        assert app.chat.text((await d.send("and on")).id) == "from first"


async def test_a_model_closed_to_make_room_is_loaded_again_after_the_one_reply(
    open_app,
    models,
) -> None:
    first = scripted_model("from first", "first")
    async with open_app(model=first, load_named=models, model_spec="first", size=(120, 30)) as d:
        app = d.app
        app.models.lacks_room = lambda spec, progress: True
        screen = await settings(d)
        screen.field("model").value = "second"
        await d.press("ctrl+t")
        await d.until(lambda: app.chat.model and app.chat.model.name == "second", "the second model")
        assert first.engine.is_closed
        reply = await d.send("hello")
        assert app.chat.text(reply.id) == "from second"
        await d.until(lambda: app.chat.model and app.chat.model.name == "first", "the first model again")
        assert app.chat.text((await d.send("and on")).id) == "from first"


async def test_choosing_the_parked_model_uses_it_without_loading(open_app, models) -> None:
    first = scripted_model("from first", "first")
    async with open_app(model=first, load_named=models, size=(120, 30)) as d:
        roomy(d)
        screen = await settings(d)
        screen.field("model").value = "second"
        await d.press("ctrl+t")
        await d.until(lambda: d.app.chat.model.name == "second", "the second model")
        d.app.model_choice.choose("first")
        assert d.app.chat.model is first
        assert d.app.chat.text((await d.send("hello")).id) == "from first"
        assert list(models.made) == ["second"]


async def test_a_window_with_one_model_shows_it_and_sets_none(open_app) -> None:
    async with open_app() as d:
        screen = await settings(d)
        assert screen.field("model").disabled
        assert screen.field("model").placeholder == "scripted-135m"
        await d.press("f4", "enter")
        await d.until(lambda: d.app.screen is d.app.main_screen, "closed")
        assert d.app.chat.own == {}
