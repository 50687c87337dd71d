"""Continue a conversation without tokens: an imported one, or one of another model."""

import asyncio
import io
import threading

import pytest

from tests.fakes import TEMPLATES, ByteTokenizer
from treechat.chat.events import NodeAdded, ReplyFinished, SpansMade, TextAdded
from treechat.chat.model.chat_model import ChatModel
from treechat.chat.session import Chat
from treechat.chat.settings import Settings
from treechat.chat.tokens.span_jobs import AT_ONCE
from treechat.chat.tokens.template import Template
from treechat.errors import GenerationError
from treechat.formats.document import ImportReport
from treechat.formats.native.reader import read_native
from treechat.formats.native.writer import FORMAT, write_native
from treechat.store import NewNode, Store
from treechat.transfer.documents import document_of
from treechat.transfer.import_writer import import_document
from treechat.tree import Turn


async def run(events) -> list:
    return [event async for event in events]


def long_conversation(store: Store, num: int = 401) -> str:
    """Store a chain without spans, like an import: a system prompt, then turns; the last one is a reply."""
    conversation_id = store.create_conversation("imported").id
    rows = [NewNode(None, "system", "Be brief.", "n0")]
    for i in range(1, num):
        rows.append(NewNode(f"n{i - 1}", "user" if i % 2 else "assistant", f"text {i} é", f"n{i}"))
    store.add_nodes(conversation_id, rows)
    store.set_current(conversation_id, f"n{num - 1}")
    return conversation_id


def rendered(model: ChatModel, chat: Chat, node_ids) -> list[int]:
    messages = [{"role": chat.tree[i].role, "content": chat.text(i)} for i in node_ids]
    text = model.template.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return model.template.encode(text)


async def test_an_imported_path_has_the_tokens_of_one_rendering_of_all_messages(store, model, engine):
    chat = Chat.open(store, long_conversation(store), Settings(), model)
    events = await run(chat.send("And now?"))
    assert list(engine.prompts[-1]) == rendered(model, chat, chat.tree.path(chat.current_id)[:-1])
    made = [(event.num, event.total) for event in events if isinstance(event, SpansMade)]
    assert made[0] == (0, 402) and made[-1] == (402, 402)
    assert made == sorted(made) and len(made) > 2
    assert isinstance(events[-1], ReplyFinished) and not events[-1].error


async def test_spans_are_made_once_and_their_cost_is_estimated_before(store, model, engine):
    conversation_id = long_conversation(store)
    chat = Chat.open(store, conversation_id, Settings(), model)
    cost = chat.kv.cost("n400")
    assert cost.mark == "○" and cost.reused == 0
    assert cost.seconds is not None and cost.seconds == cost.computed / engine.stats().prefill_tokens_per_s
    assert not store.spans(["n0", "n400"], model.fingerprint)
    await run(chat.send("One"))
    again = Chat.open(store, conversation_id, Settings(), model)
    assert not [event for event in await run(again.send("Two", parent_id="n400")) if isinstance(event, SpansMade)]
    assert engine.prompts[0][:-20] == engine.prompts[1][:-20]


async def test_an_estimate_of_prose_is_within_a_third(store, model):
    chat = Chat.open(store, long_conversation(store), Settings(), model)
    # The tokenizer of these tests has one token per byte; a real one has one token for about four bytes.
    text = sum(len(chat.text(f"n{i}").encode()) for i in range(401))
    estimate = chat.kv.cost("n400").computed
    assert abs(estimate - (text / 4 + 6 * 401)) < estimate / 3


async def test_a_branch_of_another_tokenizer_gets_further_spans_and_keeps_the_old_ones(store, model):
    first = Chat.new(store, Settings(), model)
    await run(first.send("Hi"))
    other = ChatModel("other", model.engine, Template(ByteTokenizer(TEMPLATES["no_system"])))
    chat = Chat.open(store, first.conversation_id, Settings(), other)
    await run(chat.send("More"))
    path = chat.tree.path(chat.current_id)
    assert list(model.engine.prompts[-1]) == rendered(other, chat, path[:-1])
    assert {span.tokenizer for span in store.all_spans(path[0])} == {model.fingerprint, other.fingerprint}


@pytest.mark.parametrize(
    ("status", "turn"), [("stopped", None), ("interrupted", None), ("complete", Turn("m", finish_reason="length"))]
)
async def test_an_imported_reply_that_was_cut_off_continues_after_its_last_word(store, model, engine, status, turn):
    conversation_id = store.create_conversation("c").id
    user = store.add_node(conversation_id, None, "user", "Count")
    reply = store.add_node(conversation_id, user.id, "assistant", "One, two", status=status, turn=turn)
    chat = Chat.open(store, conversation_id, Settings(), model)
    await run(chat.resume(reply.id))
    assert bytes(i for i in engine.prompts[-1] if i < 256).endswith(b"assistant\nOne, two")
    assert engine.prompts[-1][-1] not in model.template.stop_ids
    assert chat.text(reply.id) == "One, twoHello."


async def test_a_message_after_a_reply_that_was_cut_off_closes_it_first(store, model, engine):
    conversation_id = store.create_conversation("c").id
    user = store.add_node(conversation_id, None, "user", "Count")
    reply = store.add_node(conversation_id, user.id, "assistant", "One, two", status="stopped")
    store.set_current(conversation_id, reply.id)
    chat = Chat.open(store, conversation_id, Settings(), model)
    await run(chat.send("Go on"))
    assert list(engine.prompts[-1]) == rendered(model, chat, chat.tree.path(chat.current_id)[:-1])


async def test_roles_in_any_order_and_empty_texts_can_be_continued(store, model, engine):
    conversation_id = store.create_conversation("c").id
    parent = None
    for role, text in [
        ("assistant", "a"),
        ("assistant", ""),
        ("user", ""),
        ("user", "u"),
        ("system", "s"),
        ("user", ""),
    ]:
        parent = store.add_node(conversation_id, parent, role, text).id
    store.set_current(conversation_id, parent)
    chat = Chat.open(store, conversation_id, Settings(), model)
    events = await run(chat.send("Now?"))
    assert isinstance(events[-1], ReplyFinished) and not events[-1].error


async def test_a_native_import_with_tokens_continues_with_the_same_tokens(store, model, engine):
    first = Chat.new(store, Settings(), model)
    await run(first.send("Hi"))
    ids = list(first.path_ids(first.current_id))
    document = document_of(store, first.conversation_id, tokens=True)
    data = "".join(write_native([document], tokens=True)).encode()
    with Store.open(None) as copy:
        for document in read_native(io.BytesIO(data), "x", ImportReport()):
            import_document(copy, document, FORMAT, ImportReport())
        chat = Chat.open(copy, first.conversation_id, Settings(), model)
        assert list(chat.path_ids(chat.current_id)) == ids
        await run(chat.send("More"))
        assert list(engine.prompts[-1][: len(ids)]) == ids


class HeldTemplate(Template):
    """Make two chunks of spans, then wait for `go_on`."""

    def __init__(self, tokenizer) -> None:
        super().__init__(tokenizer)
        self.go_on, self.is_held, self.num = threading.Event(), threading.Event(), 0

    def span_ids(self, ancestors, message, parent_ids):
        self.num += 1
        if self.num == 250:
            self.is_held.set()
            assert self.go_on.wait(20)
        return super().span_ids(ancestors, message, parent_ids)


@pytest.fixture
def held(engine) -> ChatModel:
    return ChatModel("held", engine, HeldTemplate(ByteTokenizer()))


async def test_a_stop_while_spans_are_made_keeps_the_spans_and_the_message(store, held, engine):
    chat = Chat.open(store, long_conversation(store, 1_001), Settings(), held)
    seen = []

    async def follow():
        async for event in chat.send("Hi"):
            seen.append(event)

    task = asyncio.create_task(follow())
    # The event loop is not blocked meanwhile.
    await asyncio.to_thread(held.template.is_held.wait, 20)
    assert chat.stop()
    held.template.go_on.set()
    with pytest.raises(GenerationError, match="Stopped"):
        await task
    assert not chat.stop()
    assert not engine.prompts
    assert [event.node.role for event in seen if isinstance(event, NodeAdded)] == ["user"]
    num = len(store.spans([f"n{i}" for i in range(1_001)], held.fingerprint))
    assert num == 400
    engine.max_len = 10**6
    await run(chat.regenerate(chat.current_id))
    assert list(engine.prompts[-1]) == rendered(held, chat, chat.tree.path(chat.current_id)[:-1])


async def test_closing_the_generator_while_spans_are_made_ends_the_thread(store, held):
    chat = Chat.open(store, long_conversation(store, 1_001), Settings(), held)
    events = chat.send("Hi")
    assert isinstance(await anext(events), NodeAdded)
    assert await anext(events) == SpansMade(0, 1_002)
    held.template.go_on.set()
    await events.aclose()
    num = held.template.num
    await asyncio.sleep(0)
    assert held.template.num == num < 1_002


async def test_warming_an_imported_branch_makes_its_spans_in_a_thread(store, model, engine):
    chat = Chat.open(store, long_conversation(store), Settings(), model)
    handle = chat.kv.warm("n400")
    for _ in range(2_000):
        if engine.cached:
            break
        await asyncio.sleep(0.005)
    assert list(engine.cached[0]) == list(chat.path_ids("n400"))
    handle.cancel()
    assert chat.kv.cost("n400").mark == "●"


async def test_a_cancelled_warming_computes_nothing(store, held, engine):
    chat = Chat.open(store, long_conversation(store, 1_001), Settings(), held)
    handle = chat.kv.warm("n1000")
    await asyncio.to_thread(held.template.is_held.wait, 20)
    handle.cancel()
    held.template.go_on.set()
    for thread in threading.enumerate():
        if thread.name == "make-spans":
            await asyncio.to_thread(thread.join, 20)
    assert not engine.cached


async def test_a_short_imported_path_reports_no_progress(store, model):
    chat = Chat.open(store, long_conversation(store, AT_ONCE - 1), Settings(), model)
    events = await run(chat.send("Hi"))
    assert not [event for event in events if isinstance(event, SpansMade)]
    assert "".join(event.text for event in events if isinstance(event, TextAdded)) == "Hello."


async def test_a_template_gets_only_the_messages_that_it_reads(store, engine):
    class Counting(Template):
        most = 0

        def span_ids(self, ancestors, message, parent_ids):
            self.most = max(self.most, len(ancestors))
            return super().span_ids(ancestors, message, parent_ids)

    model = ChatModel("counting", engine, Counting(ByteTokenizer()))
    chat = Chat.open(store, long_conversation(store), Settings(), model)
    assert len(chat.path_ids("n400")) > 401
    assert model.template.most == 2
