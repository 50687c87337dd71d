"""OpenAI chat JSONL: one line per path or per bookmark, and weights that use each reply once in training."""

import json

from tests.treechat.formats.export.test_document_runs import comb
from treechat.formats.document import Document, Message
from treechat.formats.export import openai
from treechat.tree import Conversation


def rows(document, **options):
    return [json.loads(line)["messages"] for line in openai.write(document, **options)]


def test_each_leaf_has_a_line_with_its_whole_path(document):
    assert [[row["content"] for row in path] for path in rows(document)] == [
        ["Be kind.", "# Not a heading of ours\nline two \u2028 é 😀", "One.", "And then?"],
        ["Be kind.", "# Not a heading of ours\nline two \u2028 é 😀", "Two, cut"],
        ["another root"],
    ]
    assert {row["role"] for path in rows(document) for row in path} == {"system", "user", "assistant"}
    assert all(set(row) == {"role", "content"} for path in rows(document) for row in path)


def test_only_paths_to_bookmarks_on_request(document):
    assert [[row["content"] for row in path][-1] for path in rows(document, bookmarked=True)] == ["One."]


def test_weights_count_a_reply_once_and_omit_lines_without_weight(document):
    # "Two, cut" is stopped, the other root has no reply, and "And then?" follows the last reply.
    [path] = rows(document, weights=True)
    assert [(row["role"], row.get("weight")) for row in path] == [("system", None), ("user", None), ("assistant", 1)]


def test_a_reply_that_branches_share_has_weight_in_the_first_line_only():
    from treechat.tree import Node

    nodes = [Node("u", None, "user"), Node("a", "u", "assistant")]
    nodes += [n for i in "12" for n in (Node(f"u{i}", "a", "user"), Node(f"a{i}", f"u{i}", "assistant"))]
    document = Document(Conversation("c", "", 0.0, 0.0), [Message(node, node.id) for node in nodes])
    weights = [[row["weight"] for row in path if "weight" in row] for path in rows(document, weights=True)]
    assert weights == [[1, 1], [0, 1]]


def test_a_deep_chain_is_one_line_and_a_comb_is_walked_once(depth):
    from treechat.tree import Node

    messages = [Message(Node(f"n{i}", f"n{i - 1}" if i else None, "user"), "x") for i in range(depth)]
    [path] = rows(Document(Conversation("c", "", 0.0, 0.0), messages))
    assert len(path) == depth
    tree = comb(500)
    document = Document(Conversation("c", "", 0.0, 0.0), [Message(tree[i], i) for i in tree.walk()])
    assert sorted(len(path) for path in rows(document)) == [*range(2, 501), 500]
