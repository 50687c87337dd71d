"""OpenAI chat lines and ShareGPT: rows that share a prefix merge into one tree."""

import json

from treechat.formats.export import openai
from treechat.formats.trees import prefix_rows


def row(*texts, **more):
    roles = ["user", "assistant"] * len(texts)
    return {"messages": [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)], **more}


def lines(*rows):
    return "\n".join(map(json.dumps, rows)) + "\n"


def paths(document):
    by_id = {m.node.id: m for m in document.messages}
    tree = document.tree
    return [[by_id[i].text for i in tree.path(leaf)] for leaf in tree.walk() if not tree.children(leaf)]


def test_rows_with_a_shared_prefix_merge_and_others_do_not(read):
    found = read(lines(row("Hi", "A", "More", "B"), row("Hi", "C"), row("Bye", "D"), row("Hi", "A", "Other")), "openai")
    assert [paths(document) for document in found.documents] == [
        [["Hi", "A", "More", "B"], ["Hi", "A", "Other"], ["Hi", "C"]],
        [["Bye", "D"]],
    ]
    assert [document.conversation.title for document in found.documents] == ["Hi", "Bye"]
    assert not found.report.dropped and not found.report.failed


def test_the_same_text_of_another_role_is_another_node(read):
    rows = [{"messages": [{"role": role, "content": "x"}]} for role in ("user", "system", "assistant", "developer")]
    assert len(read(lines(*rows), "openai").documents) == 3


def test_an_import_of_an_export_gives_the_same_tree(read, document):
    exported = "".join(openai.write(document))
    found = read(exported, "openai")
    assert sorted(p for d in found.documents for p in paths(d)) == sorted(paths(document))


def test_portions_give_the_same_ids_as_one(read, monkeypatch):
    rows = [row("Hi", f"A{i % 3}", f"B{i}") for i in range(20)]
    whole = {m.node.id: m.text for m in read(lines(*rows), "openai").documents[0].messages}
    monkeypatch.setattr(prefix_rows, "PORTION_BYTES", 3_000)
    found = read(lines(*rows), "openai")
    assert len(found.documents) > 3
    assert {m.node.id: m.text for d in found.documents for m in d.messages} == whole


def test_parts_tools_and_reasoning(read):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "What?"}, image]},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "Hm",
            "tool_calls": [{"id": "1", "function": {"name": "look", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "a cat"},
        {"role": "assistant", "content": "A cat.", "weight": 0},
        {"role": "user", "content": "Sure?"},
        {"role": "critic", "content": "no"},
        {"role": "assistant", "content": "Yes", "weight": 1},
    ]
    found = read(lines({"messages": messages, "tools": [], "model": "gpt-x"}), "openai")
    assert [m.text for m in found.documents[0].messages] == [
        "What?\n\n[image]",
        "[thoughts]\n\n[called look]\n\n[result of look]\n\nA cat.",
        "Sure?",
        "Yes",
    ]
    last = found.documents[0].messages[-1]
    assert last.turn.model == "gpt-x" and last.meta["weight"] == 1 and last.meta["row"]["model"] == "gpt-x"
    assert found.documents[0].messages[0].meta["parts"][0]["url"].startswith("data:")
    assert "critic" in found.report.dropped[0]


def test_a_list_of_messages_alone_is_one_row(read):
    for data in (json.dumps(row("Hi", "A")["messages"], indent=1), lines(*row("Hi", "A")["messages"])):
        assert paths(read(data, "openai").documents[0]) == [["Hi", "A"]]


def test_a_broken_line_is_reported_and_the_others_are_read(read):
    data = lines(row("Hi", "A")) + '{"messages": [\n' + '{"other": 1}\n' + lines(row("Hi", "B"), {"messages": []})
    found = read(data, "openai")
    assert paths(found.documents[0]) == [["Hi", "A"], ["Hi", "B"]]
    assert [why.partition(":")[0] for why in found.report.failed] == ["export.bin, line 2", "export.bin, line 3"]
    assert found.report.dropped == ["export.bin, line 5: it has no messages"]


def shared(*turns, **more):
    return {"conversations": [{"from": sender, "value": value} for sender, value in turns], **more}


def test_sharegpt_in_an_array_and_in_lines(read):
    rows = [
        shared(("system", "Be kind"), ("human", "Hi"), ("gpt", "A"), id="x_0"),
        shared(("system", "Be kind"), ("human", "Hi"), ("gpt", "B")),
        shared(("human", "Call"), ("function_call", "{}"), ("observation", "42"), ("gpt", "It is 42"), ("alien", "?")),
        shared(("human", "Hi"), ("gpt", "C"), system="Be kind"),
    ]
    for data in (json.dumps(rows, indent=2), lines(*rows)):
        found = read(data, "sharegpt")
        assert paths(found.documents[0]) == [["Be kind", "Hi", "A"], ["Be kind", "Hi", "B"], ["Be kind", "Hi", "C"]]
        assert paths(found.documents[1]) == [["Call", "[called a tool]\n\n[result of a tool]\n\nIt is 42"]]
        assert "alien" in found.report.dropped[0] and len(found.report.dropped) == 1
        assert found.documents[0].messages[2].meta["row"] == {"id": "x_0"}


def preferred(document):
    return {m.text: m.meta["preference"] for m in document.messages if "preference" in m.meta}


def test_a_chosen_and_a_rejected_reply_are_siblings_and_the_chosen_one_is_current(read):
    hi = {"role": "user", "content": "Hi"}
    one, two = ({"role": "assistant", "content": text} for text in ("Good", "Bad"))
    turns = [{"from": "gpt", "value": text} for text in ("Good", "Bad")]
    rows = {
        "openai": [
            {"messages": [hi], "chosen": one, "rejected": two, "score": 3},
            {"prompt": "Hi", "chosen": "Good", "rejected": "Bad", "score": 3},
            {"prompt": [hi], "chosen": [one], "rejected": [two], "score": 3},
            {"prompt": "Hi", "chosen": [hi, one], "rejected": [hi, two], "score": 3},
            {"chosen_messages": [hi, one], "rejected_messages": [hi, two], "score": 3},
            {"input": {"messages": [hi]}, "preferred_output": [one], "non_preferred_output": [two], "score": 3},
        ],
        "sharegpt": [
            {"conversations": [{"from": "human", "value": "Hi"}], "chosen": turns[0], "rejected": turns[1], "score": 3}
        ],
    }
    for form, ways in rows.items():
        for line in ways:
            found = read(lines(line), form)
            [document] = found.documents
            assert paths(document) == [["Hi", "Good"], ["Hi", "Bad"]], line
            assert preferred(document) == {"Good": "chosen", "Bad": "rejected"}
            assert document.messages[1].meta["row"] == {"score": 3}
            assert document.conversation.current_id == document.messages[1].node.id
            assert not found.report.dropped and not found.report.failed


def test_a_pair_without_a_side_keeps_the_other_side(read):
    hi = {"role": "user", "content": "Hi"}
    found = read(lines({"messages": [hi], "chosen": "Good", "rejected": None}, {"messages": [hi], "rejected": [7]}))
    assert paths(found.documents[0]) == [["Hi", "Good"]]


def test_blocks_whose_text_is_under_value(read):
    call = json.dumps({"name": "look", "arguments": {"at": 1}})
    blocks = [("reasoning", "Hm"), ("tool_call", call), ("text", "Done")]
    messages = [
        {"role": "user", "content": [{"type": "image_url", "value": "a/1.jpg"}, {"type": "text", "value": "Who?"}]},
        {"role": "assistant", "content": [{"type": kind, "value": value} for kind, value in blocks]},
        {"role": "assistant", "content": [{"type": "tool_call", "value": "{broken"}]},
    ]
    found = read(lines({"messages": messages}), "openai")
    assert paths(found.documents[0]) == [
        ["[image: a/1.jpg]\n\nWho?", "[thoughts]\n\n[called look]\n\nDone", "[called a tool]"]
    ]
    assert found.documents[0].messages[1].meta["parts"][1]["arguments"] == {"at": 1}


def test_messages_without_text_are_reported(read):
    found = read(lines(row("Hi", ""), row("Hi", "A")), "openai")
    assert found.report.dropped == ["export.bin: 1 of its 3 messages have no text"]


def test_calls_that_differ_only_in_their_arguments_are_siblings(read):
    def calling(altitude, call_id):
        call = {"id": call_id, "function": {"name": "fly", "arguments": json.dumps({"to": altitude})}}
        return {"messages": [{"role": "user", "content": "Up"}, {"role": "assistant", "tool_calls": [call]}]}

    found = read(lines(calling(1, "x"), calling(2, "y"), calling(1, "z")), "openai")
    assert paths(found.documents[0]) == [["Up", "[called fly]"], ["Up", "[called fly]"]]
    arguments = [m.meta["parts"][0]["arguments"] for m in found.documents[0].messages[1:]]
    assert arguments == ['{"to": 1}', '{"to": 2}']
