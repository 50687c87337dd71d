"""Import of basemode-loom's JSON."""


def node(node_id, parent, text, model=None, **more):
    fields = {"id": node_id, "parent_id": parent, "tree_id": "r", "kind": "text", "text": text, "model": model}
    return fields | {"created_at": "2025-01-01T00:00:00+00:00", "metadata": {}, "checked_out": False} | more


def test_branches_roles_context_bookmarks_and_current_node(read):
    nodes = [
        node("r", None, "Once", kind="root", context_id="ctx", metadata={"name": "Story"}),
        node("ctx", None, "Be brief", kind="context"),
        node("a", "r", " upon", "gpt", checked_out=True, temperature=0.9, max_tokens=200),
        node("b", "r", " there", "gpt", metadata={"bookmarked": True}),
        node("c", "a", " a time", "gpt", checked_out=True),
        node("d", "c", " Really?", metadata={"role": "user"}),
        node("other", None, "Twice", tree_id="other", kind="root"),
    ]
    found = read({"version": 1, "nodes": nodes}, "basemode-loom")
    assert found.nodes() == {
        "ctx": (None, "system", "Be brief"),
        "r": ("ctx", "user", "Once"),
        "a": ("r", "assistant", " upon"),
        "c": ("a", "assistant", " a time"),
        "d": ("c", "user", " Really?"),
        "b": ("r", "assistant", " there"),
    }
    assert list(found.nodes(1)) == ["other"]
    assert found.documents[0].conversation.title == "Story" and found.documents[0].source == ("basemode-loom", "r")
    assert found.message("a").turn.sampling == {"temperature": 0.9, "max_tokens": 200}
    assert found.message("b").node.bookmarked and found.current == "c"
    assert not found.report.dropped


def test_older_files_number_their_branches(read):
    nodes = [
        {"id": "r", "parent_id": None, "root_id": "r", "text": "R"},
        {"id": "b", "parent_id": "r", "root_id": "r", "text": "B", "model": "m", "branch_index": 1},
        {"id": "a", "parent_id": "r", "root_id": "r", "text": "A", "model": "m", "branch_index": 0},
    ]
    assert list(read({"nodes": nodes}, "basemode-loom").nodes()) == ["r", "a", "b"]


def test_damage_is_reported(read):
    nodes = [node("r", None, "R"), 7, node("r", None, "again"), node("x", "y", "X"), node("y", "x", "Y"), {"text": 1}]
    found = read({"nodes": nodes}, "basemode-loom")
    assert {m.meta["id"] for d in found.documents for m in d.messages} == {"r", "x", "y"}
    assert len(found.report.dropped) == 4
