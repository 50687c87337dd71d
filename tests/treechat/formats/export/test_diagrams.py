"""DOT and Mermaid: the structure of the graph, and the escaping of labels."""

import re
import shutil
import subprocess

import pytest

from treechat.formats.document import Document, Message
from treechat.formats.export import dot, mermaid
from treechat.tree import Conversation, Node, preview_of

HOSTILE = [
    '"]; evil [label="x', "\\", '\\"', "a\\", "`**md**`", "<script>alert(1)</script>", "&lt;b&gt; &#34; &quot;",
    "%%{init: {}}%%", "end", "x\x1b[31m\0", "\u202egnp.exe", "]-->evil", "#quot;", "\ud800", "line\nbreak", "",
]  # fmt: skip


def hostile_document() -> Document:
    nodes = [Node("r", None, "user", preview="root")]
    nodes += [Node(f"n{i}", "r", "assistant", preview=preview_of(text)) for i, text in enumerate(HOSTILE)]
    return Document(Conversation("c", HOSTILE[0], 0.0, 0.0, "r"), [Message(node, node.preview) for node in nodes])


def test_dot_has_a_box_per_run_and_an_edge_per_fork_or_one_per_message(document):
    text = "".join(dot.write([document, document]))
    assert text.count("label=") == 2 * (4 + 1)
    assert re.findall(r"c0_\d+ -> c0_\d+", text) == ["c0_0 -> c0_1", "c0_0 -> c0_2"]
    assert "★" not in text.split("c0_0")[0] and "fillcolor=lightyellow" in text
    assert 'c0_1 [label="1.1 ★ One.\\n2 messages", fillcolor=lightyellow, penwidth=3]' in text
    messages = "".join(dot.write([document], messages=True))
    assert messages.count(" -> ") == 4 and messages.count("c0_") == 6 + 2 * 4


def test_a_box_names_the_labels_in_its_run_once_each():
    nodes = [Node("a", None, "user", label="start"), Node("b", "a", "assistant", label="end")]
    document = Document(Conversation("c", "", 0.0, 0.0), [Message(node, "") for node in nodes])
    assert '[label="1 start\\nend\\n2 messages"]' in "".join(dot.write([document]))


def test_mermaid_has_the_same_boxes_and_edges(document):
    text = "".join(mermaid.write([document]))
    assert re.findall(r"c0_\d+ --> c0_\d+", text) == ["c0_0 --> c0_1", "c0_0 --> c0_2"]
    assert "class c0_1 bookmarked" in text and "class c0_1 current" in text
    assert 'c0_3["2 another root<br/>1 message"]' in text


def test_no_text_breaks_out_of_a_dot_label():
    text = "".join(dot.write([hostile_document()]))
    for line in text.splitlines():
        assert re.fullmatch(r"[^\"]*(\"(?:[^\"\\]|\\.)*\"[^\"]*)*", line), line
    assert text.count("evil") == 3 and "\x1b" not in text and "\u202e" not in text
    assert len(re.findall(r"^    c0_\d+ \[label=", text, re.MULTILINE)) == len(HOSTILE) + 1


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs Graphviz (apt install graphviz)")
def test_graphviz_accepts_the_output():
    text = "".join(dot.write([hostile_document()]))
    done = subprocess.run(["dot", "-Tplain"], input=text.encode(), capture_output=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert sum(line.startswith(b"node ") for line in done.stdout.splitlines()) == len(HOSTILE) + 1


def test_no_text_is_markup_in_a_mermaid_label():
    text = "".join(mermaid.write([hostile_document()]))
    for label in re.findall(r'\["(.*)"\]$', text, re.MULTILINE):
        assert not re.search(r"[\"`<>&%{}|\[\]\\]", label.replace("<br/>", "")), label
        assert not re.search(r"#(?!\d+;)", label), label
    assert len(re.findall(r'^    c0_\d+\["', text, re.MULTILINE)) == len(HOSTILE) + 1


def test_a_deep_chain_is_drawn_without_recursion(depth):
    messages = [Message(Node(f"n{i}", f"n{i - 1}" if i else None, "user"), "x") for i in range(depth)]
    document = Document(Conversation("c", "", 0.0, 0.0), messages)
    assert f"{depth:,} messages" in "".join(dot.write([document]))
    assert sum(line.count(" --> ") for line in mermaid.write([document], messages=True)) == depth - 1
