"""Switch models in a running app: the old model works until the new one is loaded, and stays if that fails."""

from __future__ import annotations

import threading

import pytest

from tests.fakes import TURNS_ONLY, ByteTokenizer, scripted_model
from treechat.chat.model.room import is_out_of_memory, load_another
from treechat.errors import ModelError, Offline
from treechat.models import InstalledModel, Progress
from treechat.store import NewNode, Store
from treechat.tree import Turn


@pytest.fixture
def installed(monkeypatch, tmp_path):
    model = InstalledModel("second", tmp_path, 2_000_000_000, "dir:/x", False)
    monkeypatch.setattr("treechat.models.installed", lambda: [model])


def other_model(reply: str, name: str):
    """A model with the same byte tokens and another template, so another fingerprint."""
    return scripted_model(reply, name, ByteTokenizer(TURNS_ONLY + "{# another #}"))


async def choose(d, *keys: str) -> None:
    await d.press("f4")
    await d.until(lambda: d.app.screen is not d.app.main_screen, "the picker")
    await d.press(*keys, "enter")


async def test_the_old_model_replies_until_the_new_one_is_loaded_and_is_then_closed(open_app, installed) -> None:
    first, second = scripted_model("from the first", "first"), scripted_model("from the second", "second")
    ready = threading.Event()

    def load_named(spec, progress):
        assert spec == "second"
        progress(Progress("load", 1, 2, "reading weights"))
        ready.wait(20)
        return second

    async with open_app(model=first, load_named=load_named) as d:
        app = d.app
        app.models.lacks_room = lambda spec, progress: False
        await d.press("f4")
        await d.until(lambda: "2.0 GB" in d.screen_text(), "the installed models")
        await d.press(*"second", "enter")
        await d.until(lambda: "reading weights 50%" in d.screen_text(), "progress")
        reply = await d.send("hello")
        assert app.chat.text(reply.id) == "from the first"
        assert not first.engine.is_closed
        ready.set()
        await d.until(lambda: app.chat.model is second and first.engine.is_closed, "the second model")
        reply = await d.send("again")
        assert (app.chat.text(reply.id), app.chat.turn(reply.id).model) == ("from the second", "second")
    assert second.engine.is_closed


async def test_a_streaming_reply_is_finished_by_the_old_model(open_app, installed) -> None:
    first, second = scripted_model("a long reply", "first"), scripted_model("short", "second")
    first.engine.pause_at = 6
    async with open_app(model=first, load_named=lambda spec, progress: second) as d:
        app = d.app
        app.models.lacks_room = lambda spec, progress: False
        app.composer.put("go")
        await d.press("enter")
        await d.until(lambda: "a long" in d.screen_text(), "a growing reply")
        reply_id = app.chat.current_id
        await choose(d, *"second")
        await d.until(lambda: app.chat.model is second, "the second model")
        assert not first.engine.is_closed
        first.engine.gate.set()
        await d.until(lambda: first.engine.is_closed, "the first model is let go")
        assert app.chat.text(reply_id) == "a long reply"
        assert app.chat.tree[reply_id].status == "complete"


async def test_a_failed_switch_leaves_the_old_model_working(open_app, installed) -> None:
    first = scripted_model("still here", "first")

    def load_named(spec, progress):
        raise Offline(f"{spec} cannot be fetched", "Connect once.")

    async with open_app(model=first, load_named=load_named, size=(100, 30)) as d:
        d.app.models.lacks_room = lambda spec, progress: False
        await choose(d, *"org/unknown")
        await d.until(lambda: "first stays in use" in d.screen_text(), "what happened")
        assert "org/unknown cannot be fetched" in d.screen_text()
        assert d.app.chat.model is first
        reply = await d.send("hello")
        assert d.app.chat.text(reply.id) == "still here"
        await choose(d, *"second")
        await d.until(lambda: not d.app.models.load, "the second try")


async def test_if_memory_is_short_the_old_model_is_closed_first_and_loaded_again_after_a_failure(
    open_app, installed
) -> None:
    first, again = scripted_model("one", "first"), scripted_model("one again", "first")
    seen = []

    def load_named(spec, progress):
        seen.append((spec, first.engine.is_closed))
        if spec == "second":
            raise MemoryError("no room")
        return again

    async with open_app(model=first, load_named=load_named, model_spec="dir/first") as d:
        d.app.models.lacks_room = lambda spec, progress: False
        await choose(d, *"second")
        await d.until(lambda: d.app.chat.model is again, "the first model again")
        assert seen == [("second", False), ("second", True), ("dir/first", True)]
        reply = await d.send("hello")
        assert d.app.chat.text(reply.id) == "one again"


def test_room_is_made_before_loading_if_both_do_not_fit() -> None:
    calls = []
    model = scripted_model("x")

    def load(spec, progress):
        calls.append("load")
        return model

    assert load_another("m", load, lambda: calls.append("room"), print, lambda spec, progress: True) is model
    assert calls == ["room", "load"]
    with pytest.raises(ModelError):
        load_another("/no/such/model", load, lambda: calls.append("room"), print)
    assert calls == ["room", "load"]


def test_running_out_of_memory_is_distinguished_from_other_failures() -> None:
    assert is_out_of_memory(ModelError("too little memory is free for the KV of 256 tokens"))
    wrapped = ModelError("The weights cannot be read")
    wrapped.__cause__ = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
    assert is_out_of_memory(wrapped)
    assert not is_out_of_memory(ModelError("there is no model x"))


async def test_the_cost_of_continuing_another_models_branch_is_shown(open_app, tmp_path, installed) -> None:
    path = tmp_path / "s.db"
    with Store.open(path) as store:
        conversation = store.create_conversation("x")
        rows = [
            NewNode(None, "user", "a question " * 40, id="u"),
            NewNode("u", "assistant", "an answer " * 40, id="a", turn=Turn("elsewhere-7b")),
        ]
        store.add_nodes(conversation.id, rows)
        store.set_current(conversation.id, "a")
    second = other_model("x", "second")
    async with open_app(path, load_named=lambda spec, progress: second, size=(120, 30)) as d:
        d.app.models.lacks_room = lambda spec, progress: False
        await d.until(lambda: "elsewhere-7b wrote this branch; scripted-135m is in use." in d.notices, "who wrote it")
        assert "f4 chooses another model" in d.notices
        assert "Continuing with scripted-135m computes 222 tokens, about 0.5 s, once." in d.notices
        await choose(d, *"second")
        await d.until(
            lambda: "Continuing with second computes 222 tokens" in d.notices, "the same for the second model"
        )
        await d.send("on")
        assert second.fingerprint in [span.tokenizer for span in d.app.store.all_spans("a")]


def holding(*models, at="second"):
    """Return a `load_named`, its event `go_on`, and the specs it was called with.

    For the spec `at` it reports progress until `go_on` is set.
    """
    go_on, seen = threading.Event(), []

    def load_named(spec, progress):
        seen.append(spec)
        if spec == at:
            while not go_on.wait(0.01):
                progress(Progress("fetch", 1, 4, f"Fetching {spec}"))
        return next(model for model in models if model.name == (spec or "first"))

    return load_named, go_on, seen


async def test_esc_stops_a_load_and_the_old_model_stays(open_app, installed) -> None:
    first, second = scripted_model("from the first", "first"), scripted_model("x", "second")
    load_named, go_on, seen = holding(second)
    async with open_app(model=first, load_named=load_named, size=(100, 30)) as d:
        app = d.app
        app.models.lacks_room = lambda spec, progress: False
        await choose(d, *"second")
        await d.until(lambda: "Fetching second 25% · esc stops it" in d.screen_text(), "the key beside the progress")
        await d.press("escape")
        assert app.models.load is None
        assert "Stopped loading second. first stays in use." in d.notices
        await d.until(lambda: not app.models.is_thread_alive, "the end of the thread")
        assert app.chat.model is first and not first.engine.is_closed
        assert app.chat.text((await d.send("hello")).id) == "from the first"
        # The same model can be loaded again.
        go_on.set()
        await choose(d, *"second")
        await d.until(lambda: app.chat.model is second, "the second model")
        assert seen == ["second", "second"]


async def test_a_model_whose_load_was_stopped_too_late_is_closed(open_app, installed) -> None:
    first, second = scripted_model("x", "first"), scripted_model("x", "second")
    go_on = threading.Event()

    def load_named(spec, progress):
        go_on.wait(20)
        return second

    async with open_app(model=first, load_named=load_named) as d:
        d.app.models.lacks_room = lambda spec, progress: False
        await choose(d, *"second")
        await d.until(lambda: d.app.models.load, "loading")
        await d.press("escape")
        go_on.set()
        await d.until(lambda: second.engine.is_closed, "the second model is let go")
        assert d.app.chat.model is first and d.app.models.spec is None


async def test_the_first_load_is_stopped_from_the_list_and_another_model_is_loaded(open_app, installed) -> None:
    second = scripted_model("from the second", "second")
    held = threading.Event()

    def load_model(progress):
        while not held.wait(0.05):
            progress(Progress("fetch", 1, 2, "Fetching it"))

    options = {"load_model": load_model, "load_named": lambda spec, progress: second, "model_spec": "held"}
    async with open_app(**options, size=(100, 30)) as d:
        app = d.app
        await d.until(lambda: "Fetching it 50% · f4 stops it" in d.screen_text(), "progress")
        app.composer.put("hello")
        await d.press("enter", "escape")
        assert app.models.load is not None and not app.replies.is_queued, "esc takes the message back"
        await choose(d, *"stop")
        await d.until(lambda: app.models.load is None and "no model" in d.screen_text(), "stopped")
        app.models.lacks_room = lambda spec, progress: False
        await choose(d, *"second")
        await d.until(lambda: app.chat.model is second, "the second model")
        app.composer.focus()
        await d.press("enter")
        await d.until(lambda: len(app.chat.tree) == 2 and d.is_idle, "the reply")


async def test_a_model_closed_to_make_room_is_loaded_again_when_the_other_is_stopped(open_app, installed) -> None:
    first, again, second = scripted_model("x", "first"), scripted_model("y", "first"), scripted_model("z", "second")
    load_named, _, seen = holding(again, second)
    async with open_app(model=first, load_named=load_named, size=(100, 30)) as d:
        d.app.models.lacks_room = lambda spec, progress: True
        await choose(d, *"second")
        await d.until(lambda: first.engine.is_closed and seen == ["second"], "room")
        await d.press("escape")
        await d.until(lambda: d.app.chat.model is again, "the first model again")
        assert "The previous model is loaded again" in d.notices
        assert seen == ["second", None]
