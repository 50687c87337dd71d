"""Template: what each turn adds, in ids; the joined spans are what the template renders for the whole."""

import pytest

from treechat.chat.template import Message, Template


def path_ids(template: Template, messages: list[Message]) -> list[int]:
    ids: list[int] = []
    parent: list[int] = []
    for index, message in enumerate(messages):
        parent = template.span_ids(messages[:index], message, parent)
        ids.extend(parent)
    return ids


EXCHANGE = [Message("user", "hi"), Message("assistant", "yo"), Message("user", "and?")]


@pytest.mark.parametrize("system", [[], [Message("system", "Be brief")]])
@pytest.mark.parametrize("name", ["chatml", "thinking"])
def test_joined_spans_are_the_rendering_of_the_whole(tokenizer_with, templates, name, system):
    tokenizer = tokenizer_with(templates[name])
    template = Template(tokenizer)
    messages = [*system, *EXCHANGE]
    whole = tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.text} for m in messages], tokenize=False, add_generation_prompt=True
    )
    assert template._tokenizer.decode(path_ids(template, messages), skip_special_tokens=False) == whole


def test_a_system_prompt_has_a_span_of_its_own_so_that_conversations_share_it(tokenizer_with):
    template = Template(tokenizer_with())
    system = Message("system", "Be brief")
    span = template.span_ids([], system, [])
    assert tokenizer_with().decode(span, skip_special_tokens=False) == "<|im_start|>system\nBe brief<|im_end|>\n"
    a = template.span_ids([system], Message("user", "one"), span)
    assert "Be brief" not in template.decode(a)


def test_a_template_without_system_role_gets_it_in_front_of_the_first_message(tokenizer_with, templates):
    template = Template(tokenizer_with(templates["no_system"]))
    ids = path_ids(template, [Message("system", "Be brief"), *EXCHANGE])
    text = tokenizer_with().decode(ids, skip_special_tokens=False)
    assert text.startswith("<bos><|im_start|>user\nBe brief\n\nhi<|im_end|>")
    assert text.count("<bos>") == 1


def test_thoughts_stay_where_they_were_though_the_template_would_drop_them(tokenizer_with, templates):
    template = Template(tokenizer_with(templates["thinking"]))
    messages = [EXCHANGE[0], Message("assistant", "<think>hm</think>yo"), EXCHANGE[2]]
    assert "hm" in template.decode(path_ids(template, messages))


def test_a_reply_that_was_cut_off_is_closed_by_the_next_turn(tokenizer_with):
    template = Template(tokenizer_with())
    cut = list(b"yo")
    ended = [*cut, 257]
    owed = template.span_ids(EXCHANGE[:2], EXCHANGE[2], cut)
    paid = template.span_ids(EXCHANGE[:2], EXCHANGE[2], ended)
    assert cut + owed == ended + paid


def test_the_stop_token_is_found_in_the_template(tokenizer_with):
    assert Template(tokenizer_with()).stop_ids == (257,)
    assert Template(tokenizer_with(None)).stop_ids == ()


def test_without_a_template_text_goes_on_from_text_with_one_begin_token(tokenizer_with):
    template = Template(tokenizer_with(None, adds_bos=True))
    assert template.is_text
    assert path_ids(template, [Message("user", "Once "), Message("assistant", "upon"), Message("user", " a")]) == [
        258,
        *b"Once upon a",
    ]


def test_the_fingerprint_tells_templates_apart(tokenizer_with, templates):
    prints = {Template(tokenizer_with(t)).fingerprint for t in (*templates.values(), None)}
    assert len(prints) == 4
