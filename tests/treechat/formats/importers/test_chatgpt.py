"""Import from ChatGPT: hand-written exports with the special cases of the format."""

import io
import json
import zipfile


def message(text="", role="user", **more):
    content = more.pop("content", {"content_type": "text", "parts": [text]})
    return {"author": {"role": role, "name": more.pop("name", None)}, "content": content, "weight": 1, **more}


def conversation(nodes, **more):
    """Return an export. nodes: (id, parent, message) in the order of the mapping."""
    mapping = {
        node_id: {
            "id": node_id,
            "message": said,
            "parent": parent,
            "children": [i for i, p, _ in nodes if p == node_id],
        }
        for node_id, parent, said in nodes
    }
    return {"title": "Trip", "create_time": 100.0, "conversation_id": "c-1", "mapping": mapping, **more}


HI = [("root", None, None), ("sys", "root", message("", "system")), ("u1", "sys", message("Hi"))]


def test_branches_order_current_model_times_and_title(read):
    nodes = [
        ("a2", "u1", message("Two", "assistant", create_time=120.5, metadata={"model_slug": "gpt-5"})),
        *HI,
        ("a1", "u1", message("One", "assistant")),
        ("u2", "a1", message("More?", create_time=130)),
    ]
    export = conversation(nodes, current_node="a1", default_model_slug="gpt-4o")
    export["mapping"]["u1"]["children"] = ["a1", "a2"]
    found = read([export], "chatgpt")
    assert found.nodes() == {
        "u1": (None, "user", "Hi"),
        "a1": ("u1", "assistant", "One"),
        "u2": ("a1", "user", "More?"),
        "a2": ("u1", "assistant", "Two"),
    }
    assert found.current == "a1"
    assert found.message("a2").turn.model == "gpt-5" and found.message("a1").turn.model == "gpt-4o"
    assert found.message("a2").node.created_at == 120.5
    assert found.message("a1").node.created_at == 100.0
    assert found.documents[0].conversation.title == "Trip"
    assert found.documents[0].source == ("chatgpt", "c-1")
    assert found.report.dropped == found.report.failed == []


def test_without_children_the_tree_comes_from_parents_and_siblings_from_times(read):
    nodes = [
        *HI,
        ("late", "u1", message("Late", "assistant", create_time=9)),
        ("early", "u1", message("Early", "assistant", create_time=3)),
    ]
    export = conversation(nodes)
    for node in export["mapping"].values():
        del node["children"]
    assert list(read([export], "chatgpt").nodes()) == ["u1", "early", "late"]


def test_an_assistants_chain_is_one_node_that_keeps_its_parts(read):
    thoughts = {"content_type": "thoughts", "thoughts": [{"summary": "Plan", "content": "Look it up"}]}
    code = {"content_type": "code", "language": "python", "text": "print(1)"}
    nodes = [
        *HI,
        ("t", "u1", message(role="assistant", content=thoughts)),
        ("call", "t", message(role="assistant", content=code, recipient="python")),
        ("out", "call", message(role="tool", name="python", content={"content_type": "execution_output", "text": "1"})),
        ("recap", "out", message(role="assistant", content={"content_type": "reasoning_recap", "content": "4 s"})),
        ("final", "recap", message("It is 1.", "assistant", channel="final", end_turn=True)),
        ("u2", "final", message("Thanks")),
    ]
    found = read([conversation(nodes, current_node="out")], "chatgpt")
    text = "[thoughts]\n\n[called python]\n\n[result of python]\n\nIt is 1."
    assert found.nodes() == {
        "u1": (None, "user", "Hi"),
        "final": ("u1", "assistant", text),
        "u2": ("final", "user", "Thanks"),
    }
    parts = found.message("final").meta["parts"]
    assert [part["type"] for part in parts] == ["thoughts", "call", "result", "recap"]
    assert parts[0]["text"] == "Plan\n\nLook it up" and parts[1]["arguments"] == "print(1)"
    assert found.current == "final"


def test_a_fork_inside_a_chain_gives_a_node_per_branch(read):
    thoughts = {"content_type": "thoughts", "thoughts": [{"summary": "", "content": "Hm"}]}
    nodes = [
        *HI,
        ("t", "u1", message(role="assistant", content=thoughts)),
        ("one", "t", message("One", "assistant")),
        ("two", "t", message("Two", "assistant")),
        ("u2", "two", message("Why?")),
    ]
    found = read([conversation(nodes)], "chatgpt")
    assert found.nodes() == {
        "u1": (None, "user", "Hi"),
        "one": ("u1", "assistant", "[thoughts]\n\nOne"),
        "two": ("u1", "assistant", "[thoughts]\n\nTwo"),
        "u2": ("two", "user", "Why?"),
    }
    assert found.message("one").meta["parts"] == found.message("two").meta["parts"]


def test_a_finished_reply_with_another_below_are_two_nodes(read):
    nodes = [
        *HI,
        ("a", "u1", message("One", "assistant", end_turn=True)),
        ("b", "a", message("Two", "assistant", end_turn=True)),
        ("u2", "a", message("Go on")),
    ]
    found = read([conversation(nodes)], "chatgpt")
    assert found.nodes()["b"] == ("a", "assistant", "Two") and found.nodes()["u2"] == ("a", "user", "Go on")


def test_forks_at_the_first_message_and_under_hidden_nodes(read):
    context = {"content_type": "user_editable_context", "user_profile": "I am a gardener"}
    hidden = {"is_visually_hidden_from_conversation": True}
    nodes = [
        ("root", None, None),
        ("ctx", "root", message(content=context, metadata=hidden)),
        ("u1", "ctx", message("Tulips?")),
        ("u1b", "ctx", message("Roses?")),
        ("h", "u1", message("Be brief", "system", metadata=hidden)),
        ("a1", "h", message("Yes", "assistant")),
        ("a2", "h", message("No", "assistant")),
    ]
    found = read([conversation(nodes, current_node="h")], "chatgpt")
    assert found.nodes() == {
        "u1": (None, "user", "Tulips?"),
        "a1": ("u1", "assistant", "Yes"),
        "a2": ("u1", "assistant", "No"),
        "u1b": (None, "user", "Roses?"),
    }
    assert found.message("u1b").meta["parts"][0]["raw"]["content"]["user_profile"] == "I am a gardener"
    assert found.message("a2").meta["parts"] == [
        {"type": "hidden", "raw": {"role": "system", "content": message("Be brief")["content"]}}
    ]
    assert found.current in ("a1", "u1")


def test_every_content_type_leaves_something_to_read(read):
    asset = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://file-1", "width": 3}
    audio = {"content_type": "audio_transcription", "text": "Spoken"}
    parts = [asset, audio, {"content_type": "audio_asset_pointer", "asset_pointer": "sediment://file_2"}, "What is it?"]
    attachments = [{"id": "file-1", "name": "cat.png"}, {"id": "file-9", "name": "notes.txt"}]
    quote = {"content_type": "tether_quote", "title": "T", "url": "http://x", "text": "Quoted"}
    nodes = [
        *HI,
        (
            "u2",
            "u1",
            message(content={"content_type": "multimodal_text", "parts": parts}, metadata={"attachments": attachments}),
        ),
        ("q", "u2", message(role="tool", name="browser", content=quote)),
        ("d", "q", message(role="tool", name="b", content={"content_type": "tether_browsing_display", "result": "R"})),
        ("new", "d", message(role="assistant", content={"content_type": "hologram", "text": "Shimmer"})),
        (
            "code",
            "new",
            message(role="assistant", content={"content_type": "code", "language": "unknown", "text": "x"}),
        ),
    ]
    found = read([conversation(nodes)], "chatgpt")
    assert found.nodes()["u2"][2] == "[image: cat.png]\n\nSpoken\n\n[audio: file_2]\n\nWhat is it?\n\n[file: notes.txt]"
    assert found.nodes()["code"][2] == "[result of browser]\n\n[result of b]\n\nShimmer\n\n```\nx\n```"
    assert [part.get("text") for part in found.message("code").meta["parts"]] == ["Quoted", "R", None]
    assert len(found.report.dropped) == 1 and "hologram" in found.report.dropped[0]


def test_title_times_and_mapping_may_be_missing_or_null(read):
    exports = [
        {"id": "no-mapping", "mapping": None},
        {"title": None, "mapping": {"a": {"message": message("A question\nof two lines")}}, "current_node": "gone"},
    ]
    found = read(exports, "chatgpt")
    assert len(found.documents) == 1
    assert found.documents[0].conversation.title == "A question of two lines"
    assert found.documents[0].messages[0].node.created_at > 1e9
    assert any("no messages" in why for why in found.report.dropped)


def test_stopped_and_cut_off_replies_have_their_status(read):
    def ended(kind):
        return {"metadata": {"finish_details": {"type": kind}}}

    nodes = [
        *HI,
        ("a", "u1", message("Cut", "assistant", **ended("interrupted"))),
        (
            "b",
            "u1",
            message("Long", "assistant", metadata={"model_slug": "m", "finish_details": {"type": "max_tokens"}}),
        ),
    ]
    found = read([conversation(nodes)], "chatgpt")
    assert found.message("a").node.status == "stopped"
    assert found.message("b").turn.finish_reason == "length"


def test_cycles_missing_and_several_parents_are_reported_and_kept(read):
    nodes = [*HI, ("x", "y", message("X")), ("y", "x", message("Y")), ("z", "gone", message("Z"))]
    export = conversation(nodes)
    export["mapping"]["root"]["children"] = ["sys", "u1"]
    found = read([export], "chatgpt")
    assert set(found.nodes()) == {"u1", "x", "y", "z"}
    sentences = " ".join(found.report.dropped)
    assert "several parents" in sentences and "its own ancestor" in sentences and "gone" in sentences


def test_a_zip_with_shards_and_other_files(read):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("export_manifest.json", '{"files": []}')
        file.writestr("user.json", '{"id": "user-1", "email": "x"}')
        for i in range(3):
            one = conversation([*HI], conversation_id=f"c-{i}", title=f"T{i}")
            file.writestr(f"conversations-00{i}.json", json.dumps([one]))
        file.writestr("file_1.dat", b"\x89PNG")
    found = read(archive.getvalue(), "chatgpt")
    assert [document.conversation.title for document in found.documents] == ["T0", "T1", "T2"]


def test_one_conversation_alone_and_pretty_printed(read):
    assert list(read(json.dumps(conversation(HI), indent=2), "chatgpt").nodes()) == ["u1"]


def test_a_deep_chain_is_read(read, depth):
    nodes = {"r": {"message": None, "parent": None}}
    for i in range(depth):
        said = message(str(i), "assistant" if i % 2 else "user")
        nodes[f"n{i}"] = {"message": said, "parent": f"n{i - 1}" if i else "r"}
    found = read([{"mapping": nodes, "title": "deep"}], "chatgpt")
    assert len(found.documents[0].messages) == depth and not found.report.dropped


def test_repetition_in_a_chain_with_a_fork_at_each_step_is_limited(read):
    nodes = {"u": {"message": message("U"), "parent": None}}
    for i in range(2_000):
        above = f"t{i - 1}" if i else "u"
        nodes[f"t{i}"] = {"message": message(f"T{i}" * 50, "assistant", recipient="tool"), "parent": above}
        nodes[f"l{i}"] = {"message": message(f"L{i}", "assistant"), "parent": above}
    [document] = read([{"mapping": nodes, "title": "wide"}], "chatgpt").documents
    assert sum(len(json.dumps(m.meta)) for m in document.messages) < 40_000_000
    assert {m.text.rpartition("\n\n")[2] for m in document.messages} >= {f"L{i}" for i in range(2_000)}


def test_citation_marks_become_links_and_names(read):
    cited = "Founded 2014【0†source】, see 【引用】 and【9†lost】."
    start = cited.index("【0")
    page = {"title": "A [page]", "url": "https://a.example/x"}
    old = {"citations": [{"start_ix": start, "end_ix": start + 10, "metadata": page}, {"start_ix": "x"}, 7]}
    mark, lost = "\ue200cite\ue202turn0search0\ue201", "\ue200cite\ue202turn9\ue201"
    entity = '\ue200entity\ue202["city","Paris","capital"]\ue201'
    new = {
        "content_references": [
            {"matched_text": f" {mark}", "alt": "([b](https://b.example))", "type": "grouped_webpages"},
            {"matched_text": " ", "alt": "", "type": "sources_footnote"},
            {"matched_text": {}, "alt": []},
        ]
    }
    nodes = [
        ("u", None, message("Who?")),
        ("a", "u", message(cited, "assistant", metadata=old, end_turn=True)),
        ("b", "u", message(f"In {entity} {mark}.{lost}", "assistant", metadata=new, end_turn=True)),
    ]
    found = read(conversation(nodes), "chatgpt")
    assert found.message("a").text == "Founded 2014 ([A  page ](https://a.example/x)), see 【引用】 and【9†lost】."
    assert found.message("b").text == "In Paris ([b](https://b.example))."


def test_without_parents_and_children_the_messages_are_one_branch_by_time(read):
    nodes = [("b", None, message("B", "assistant", create_time=20)), ("a", None, message("A", create_time=10))]
    slim = conversation(nodes)
    for node in slim["mapping"].values():
        del node["parent"], node["children"]
    found = read(slim, "chatgpt")
    assert list(found.nodes().items()) == [("a", (None, "user", "A")), ("b", ("a", "assistant", "B"))]
    assert "have no parents" in found.report.dropped[0]
