"""The HTML page: well-formed, with every branch, without active content from texts, without fetches."""

import base64
import hashlib
import re
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.treechat.formats.export.test_document_runs import comb
from treechat.formats.document import Document, Message
from treechat.formats.export import html
from treechat.formats.export.html_text import MAX_MARKDOWN_CHARS, code_css, escape_controls, text_html
from treechat.tree import Conversation, Node, Turn, preview_of

VOID = {"meta", "input", "br", "hr"}
TEXT_TAGS = {
    "p", "br", "hr", "em", "strong", "s", "a", "code", "pre", "span", "ul", "ol", "li", "blockquote", "h4", "h5", "h6",
    "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
ATTRIBUTES = {"href", "rel", "class", "data-language", "tabindex", "start", "title"}
HOSTILE = r"""
<script>alert(1)</script>
</div></article></main><script>x()</script>
" onmouseover="x()
<!-- x -->
<img src=x onerror=x()>
![a](http://e.example/x.png)
![" onerror="x](http://e.example/"onerror="x)
[a](javascript:x())
[a](JaVaScRiPt:x())
[a](data:text/html,x)
[a](vbscript:x)
<javascript:x()>
<http://a.example/"onclick=x>
[x]: javascript:y{n}{n}[x]
```"><script>x()</script>{n}code{n}```
```html{n}</code></pre><script>x()</script>{n}```
```{n}</pre><script>
&lt;script&gt;
&#60;script&#62;
<svg/onload=x()>
<a href='x' style='position:fixed'>
| a | b |{n}|:-:|-:|{n}| <b> | 1 |
<style>*{display:none}</style>
<base href=//e.example>
<meta http-equiv=refresh content=0>
]]>
{title}
%s
""".strip().split("\n")
HOSTILE = [text.replace("{n}", "\n") for text in HOSTILE]
HOSTILE += ["\0\x1b[31m\x9b", "\u202eevil\u2066", "\ud800\udfff"]


class Page(HTMLParser):
    """Collects the elements and their attributes, and checks that they are closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.deepest = 0
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"twice the same attribute: {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.deepest = max(self.deepest, len(self.open))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        self.text.append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    def of(self, tag: str, name: str | None = None) -> list[dict[str, str | None]]:
        return [attrs for each, attrs in self.elements if each == tag and name in (None, attrs.get("class"))]


def page_of(*documents: Document) -> Page:
    return Page("".join(html.write(documents)))


def hostile_document() -> Document:
    messages = [Message(Node("r", None, "user", preview="root"), "root")]
    for i, text in enumerate(HOSTILE):
        node = Node(f"n{i}", "r", "assistant", preview=preview_of(text), label=text)
        messages.append(Message(node, text, Turn(text), labels=(text,)))
    return Document(Conversation("c", HOSTILE[0] + HOSTILE[2], 0.0, 0.0, "r"), messages)


def test_every_message_is_in_the_page_once_with_a_link_to_it(document):
    page = page_of(document)
    anchors = [attrs["id"] for attrs in page.of("article", "user") + page.of("article", "assistant")]
    assert sorted(anchors) == sorted(f"n-{i}" for i in ("u1", "a1", "u2", "a2", "x1"))
    assert "data-current" in next(attrs for attrs in page.of("article", "user") if attrs["id"] == "n-u2")
    ids = [attrs["id"] for _, attrs in page.elements if attrs.get("id")]
    assert len(ids) == len(set(ids))
    links = {attrs["href"] for attrs in page.of("a") if str(attrs["href"]).startswith("#")}
    assert {link[1:] for link in links} <= set(ids)
    ups = {attrs["id"]: attrs.get("data-up") for attrs in page.of("section")}
    assert ups == {"c0": None, "r0-0": "c0", "r0-1": "r0-0", "r0-2": "r0-0", "r0-3": "c0"}
    text = " ".join("".join(page.text).split())
    assert "1.1 · One." in text and "first ★" in text
    assert "tiny · reused 8 · computed 4 · 3 tokens" in text and "stopped" in text


def test_rows_of_the_tree_are_in_the_order_of_the_sections(document):
    source = "".join(html.write([document, document]))
    page = Page(source)
    rows = source[source.index('<ol id="rows">') :].count("<li ")
    assert rows == len(page.of("section")) == 2 * (1 + 4)


def test_hostile_texts_give_only_markdown_elements():
    for text in HOSTILE:
        page = Page(text_html(text))
        assert {tag for tag, _ in page.elements} <= TEXT_TAGS, text
        for tag, attrs in page.elements:
            assert set(attrs) <= ATTRIBUTES, (text, attrs)
            assert tag != "a" or re.match(r"(https?|mailto):", str(attrs["href"])), text
        assert not re.search("[\0\x1b\x9b\u202e\u2066\ud800]", "".join(page.text)), text


def test_the_page_of_hostile_texts_has_no_more_scripts_than_any_other(document):
    hostile, other = page_of(hostile_document()), page_of(document)
    for tag in ("script", "style", "meta", "base", "img", "svg", "iframe", "form", "link", "main", "title"):
        assert len(hostile.of(tag)) == len(other.of(tag)), tag
    assert not [attrs for _, attrs in hostile.elements for name in attrs if name.startswith("on") or name == "src"]
    assert not [attrs for _, attrs in hostile.elements if "style" in attrs]


def test_the_policy_allows_only_these_scripts_and_styles_and_no_fetches(document):
    source = "".join(html.write([document]))
    policy = next(attrs["content"] for attrs in Page(source).of("meta") if "http-equiv" in attrs)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["base-uri"] == "'none'"
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        contents = re.findall(rf"<{tag}>(.*?)</{tag}>", source, re.DOTALL)
        hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(c.encode()).digest()).decode()}'" for c in contents}
        assert hashes == set(rules[rule].split())
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|innerHTML|eval\(", source)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(st.sampled_from([*HOSTILE, "*", "_", "`", "[", "](", "<", "> ", "\n", "# ", "~~"]), st.text()),
        max_size=6,
    )
)
def test_any_text_gives_closed_harmless_elements(pieces):
    page = Page(text_html("".join(pieces)))
    assert {tag for tag, _ in page.elements} <= TEXT_TAGS
    assert all(set(attrs) <= ATTRIBUTES for _, attrs in page.elements)


def test_imported_thoughts_and_tool_calls_are_folded_and_harmless():
    parts = [
        {"type": "thoughts", "text": "*hm* <script>"},
        {"type": "call", "name": "a<b", "arguments": {"q": "</pre>"}},
    ]
    deep: list = []
    for _ in range(5_000):
        deep = [deep]
    parts += [{"type": "result", "name": 7, "text": None}, {"type": "call", "arguments": deep}]
    parts += [{"type": "image", "url": "http://e.example"}, "?"]
    for meta in ({"parts": parts}, {"parts": {}}, {"parts": None}):
        message = Message(Node("a", None, "assistant"), "[thoughts]", meta=meta)
        page = page_of(Document(Conversation("c", "", 0.0, 0.0), [message]))
        assert len(page.of("details")) == (4 if meta["parts"] == parts else 0)
        assert len(page.of("script")) == 2
    page = page_of(Document(Conversation("c", "", 0.0, 0.0), [Message(message.node, "x", meta={"parts": parts})]))
    text = "".join(page.text)
    assert "hm <script>" in text and "call · a<b" in text and '"q": "</pre>"' in text


def test_code_is_coloured_for_both_themes_and_unknown_languages_are_not():
    known = text_html("```python\ndef f(): pass\n```")
    assert '<span class="k">def</span>' in known and 'data-language="python"' in known
    assert "<span" not in text_html("```nonsense\ndef f(): pass\n```")
    assert re.search(r"\.code \.k\{color:light-dark\(#\w+, #\w+\)", code_css())


def test_images_are_links_and_line_ends_stay():
    assert 'href="https://e.example/a.png"' in text_html("![a](https://e.example/a.png)")
    assert "<img" not in text_html("![a](https://e.example/a.png)")
    assert text_html("one\ntwo").count("<br") == 1


@pytest.mark.parametrize(
    "text", ["[" * 90_000, "![" * 45_000, "*a " * 30_000, "> " * 45_000, "```perl\n" + "s{" * 20_000]
)
def test_texts_crafted_to_be_slow_render_in_time(text):
    # CPU time of this process: wall time depends on the load of the machine.
    begun = time.process_time()
    text_html(text)
    assert time.process_time() - begun < 30


def test_a_message_too_long_for_markdown_is_plain_and_complete():
    text = "# <b>x</b>\n" * (MAX_MARKDOWN_CHARS // 10)
    page = Page(text_html(text))
    assert [tag for tag, _ in page.elements] == ["pre"]
    assert "".join(page.text).rstrip("\n") == text.rstrip("\n")


def test_control_characters_are_replaced_by_their_codes():
    assert escape_controls("a\x1bb\u202e\n\t") == "a⟨U+001B⟩b⟨U+202E⟩\n\t"


def test_forks_and_chains_of_any_depth_give_a_flat_page():
    tree = comb(3_000)
    deep = page_of(Document(Conversation("c", "", 0.0, 0.0), [Message(tree[i], i) for i in tree.walk()]))
    assert deep.deepest < 12
    assert len(deep.of("section")) == 1 + 5_999


def test_a_deep_chain_is_written_without_recursion(depth):
    messages = [Message(Node(f"n{i}", f"n{i - 1}" if i else None, "user"), "word") for i in range(depth)]
    pieces = html.write([Document(Conversation("c", "", 1e300, 0.0), messages)])
    assert sum(piece.count("<article ") for piece in pieces) == depth
