"""Markdown export of a branch and of a tree."""

from treechat.formats.document import Document, Message
from treechat.formats.export import markdown
from treechat.tree import Conversation, Node


def test_a_branch_has_its_messages_in_order_and_no_others(document):
    text = "".join(markdown.write_branch(document, ["r1", "u1", "a2"]))
    assert text.startswith("# A title\n\n## System\n\nBe kind.\n\n## You\n\n")
    assert "## Assistant · stopped\n\nTwo, cut\n" in text
    assert "One." not in text


def test_the_tree_numbers_its_runs_by_forks(document):
    headings = [line for line in "".join(markdown.write_tree(document)).splitlines() if line.startswith("## ")]
    assert headings == ["## 1 · Be kind.", "## 1.1 · One.", "## 1.2 · Two, cut", "## 2 · another root"]


def test_labels_and_bookmarks_are_in_the_heading(document):
    assert "### Assistant · “first” · ★\n\nOne.\n" in "".join(markdown.write_tree(document))


def test_a_deep_chain_is_written_without_recursion():
    messages = [Message(Node(f"n{i}", f"n{i - 1}" if i else None, "user"), "x") for i in range(20_000)]
    document = Document(Conversation("c", "", 0.0, 0.0), messages)
    text = "".join(markdown.write_tree(document))
    assert text.count("### You") == 20_000
    assert text.startswith("# Untitled")
