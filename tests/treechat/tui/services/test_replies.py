"""Continue an imported conversation: its cost, the progress of making its tokens, and stopping that."""

import threading

import pytest

from tests.fakes import scripted_model
from treechat.store import NewNode, Store
from treechat.tui.services.kv_watch import KvWatch

NUM = 600


@pytest.fixture
def imported(tmp_path):
    path = tmp_path / "x.db"
    with Store.open(path) as store:
        conversation = store.create_conversation("imported").id
        roles = ("user", "assistant")
        rows = [NewNode(f"n{i - 1}" if i else None, roles[i % 2], f"text {i}", f"n{i}") for i in range(NUM)]
        store.add_nodes(conversation, rows)
        store.set_current(conversation, f"n{NUM - 1}")
    return path


@pytest.fixture
def held():
    """A model whose template blocks at the 300th message until `go_on` is set."""
    model = scripted_model("Hello.")
    make, made = model.template.span_ids, []
    model.template.go_on = threading.Event()

    def span_ids(*args):
        made.append(args)
        if len(made) == 300:
            assert model.template.go_on.wait(30)
        return make(*args)

    model.template.span_ids = span_ids
    yield model
    model.template.go_on.set()


async def test_token_progress_is_shown_and_esc_keeps_the_message_and_its_tokens(open_app, imported, held, monkeypatch):
    # Warming would make the tokens before the message is sent.
    monkeypatch.setattr(KvWatch, "rest_s", 1_000)
    async with open_app(imported, model=held) as d:
        await d.until(lambda: "compute" in d.app.status.row, "what it takes, beforehand")
        assert d.app.status.row.startswith("○ reuse 0")
        d.app.composer.put("And now?")
        await d.press("enter")
        await d.until(lambda: f"tokens of 200/{NUM + 1} messages" in d.app.status.activity, "progress")
        # Keys are handled in the meantime.
        await d.press("tab", "h")
        assert d.app.cursor_id != d.app.chat.current_id
        await d.press("escape")
        held.template.go_on.set()
        await d.until(lambda: d.is_idle, "the end")
        assert "Stopped before the reply began" in d.screen_text()
        node = d.app.chat.tree[d.app.chat.current_id]
        assert (node.role, d.app.chat.text(node.id)) == ("user", "And now?")
        d.app.look_at(node.id)
        await d.press("r")
        await d.until(lambda: d.app.chat.tree[d.app.chat.current_id].role == "assistant" and d.is_idle, "a reply")
        assert d.app.chat.text(d.app.chat.current_id) == "Hello."
