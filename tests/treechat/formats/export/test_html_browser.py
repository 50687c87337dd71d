"""The page in a real browser: branch switching, folding, search, no fetches, and a complete printout."""

import json
import re
import shutil
import subprocess

import pytest

from tests.treechat.formats.export.test_html import hostile_document
from treechat.formats.document import Document, Message
from treechat.formats.export import html
from treechat.tree import Conversation, Node

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt install chromium)")

DRIVER = """
const results = {};
const wait = () => new Promise((done) => setTimeout(done, 400));
const key = (name, on) => (on ?? document.body).dispatchEvent(
  new KeyboardEvent("keydown", {key: name, bubbles: true, cancelable: true}));
const shown = () => [...document.querySelectorAll("main > section")]
  .filter((section) => section.offsetParent).map((section) => section.id).join(" ");
const rows = () => [...document.querySelectorAll("#rows > li")].filter((row) => row.offsetParent).length;
(async () => {
  await wait();
  results.start = shown();
  key("l"); await wait();
  results.afterL = shown();
  key("h"); await wait();
  results.afterH = shown();
  results.address = location.hash;
  document.querySelector('#r0-0 .ways a[href="#n-a2"]').click(); await wait();
  results.afterLink = shown();
  results.marked = document.querySelector('.ways a[aria-current]:not([href="#n-r1"])').getAttribute("href");
  history.back(); await wait();
  results.afterBack = shown();
  results.rows = rows();
  key("F"); results.allFolded = rows();
  key("F"); results.unfolded = rows();
  const row = document.querySelector('#rows a[href="#n-r1"]');
  row.focus(); key("ArrowLeft", row); results.oneFolded = rows();
  key("ArrowRight", row);
  const search = document.getElementById("search");
  search.value = "two cut"; search.dispatchEvent(new Event("input")); await wait();
  results.count = document.getElementById("count").textContent;
  results.hits = [...document.querySelectorAll("#hits a")].map((hit) => [hit.getAttribute("href"), hit.textContent]);
  key("Enter", search); await wait();
  results.afterSearch = shown();
  results.highlighted = CSS.highlights.get("hit").size;
  const back = () => getComputedStyle(document.body).backgroundColor;
  key("t"); results.dark = back();
  key("t"); results.light = back();
  document.title = JSON.stringify(results);
})();
"""


def browse(page, tmp_path, fragment=""):
    """Return the page's source after its scripts ran, the console's output and the network log."""
    file, log = tmp_path / "page.html", tmp_path / "net.json"
    file.write_text(page, encoding="utf-8", errors="replace")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,800", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}", "--virtual-time-budget=20000", "--dump-dom",
        f"{file.as_uri()}{fragment}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    console = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if "CONSOLE" in line]
    return done.stdout.decode("utf-8", "replace"), console, log.read_text(encoding="utf-8")


def shown_in(source):
    return re.findall(r'<section class="[^"]*shown[^"]*" id="([^"]*)"', source)


def test_the_address_chooses_the_branch_and_the_policy_lets_the_script_run(document, tmp_path):
    source, console, _ = browse("".join(html.write([document])), tmp_path, "#n-a2")
    assert shown_in(source) == ["c0", "r0-0", "r0-2"]
    assert console == []


def test_hostile_texts_run_nothing_and_fetch_nothing(tmp_path):
    source, console, net = browse("".join(html.write([hostile_document()])), tmp_path)
    assert len(shown_in(source)) == 3
    assert console == []
    assert "page.html" in net and "e.example" not in net and "a.example" not in net


LOOK = """
const list = [...document.querySelectorAll(".shown .ways ol")].at(-1), way = list.querySelector("a[aria-current]");
const box = list.getBoundingClientRect(), at = way.getBoundingClientRect();
const text = [...document.querySelectorAll(".shown .text")].at(-1), pre = text.querySelector("pre");
const seen = at.top >= box.top && at.bottom <= box.bottom;
const main = document.querySelector("main").getBoundingClientRect();
const current = document.querySelector("article[data-current]");
// When all that was jumped over has its height.
setTimeout(() => document.title = JSON.stringify({
  here: current.getBoundingClientRect().top < main.bottom && current.getBoundingClientRect().bottom > main.top,
  way: way.getAttribute("href"), seen,
  text: getComputedStyle(text).direction, code: [getComputedStyle(pre).direction, getComputedStyle(pre).textAlign],
}), 3000);
"""


def broad_document(current, num_above=0):
    """Return 30 replies to one message below `num_above` long messages, every third of which has a sibling."""
    rtl = "\u05e2\u05d1\u05e8\u05d9\u05ea:\n\n```python\n" + "print(1)\n" * 400 + "```"
    nodes = [Node(f"p{i}", f"p{i - 1}" if i else None, "user") for i in range(num_above)]
    nodes += [Node(f"s{i}", f"p{i - 1}", "user") for i in range(1, num_above, 3)]
    nodes.append(Node("u", nodes[num_above - 1].id if num_above else None, "user"))
    nodes += [Node(f"a{i}", "u", "assistant") for i in range(30)]
    messages = [
        Message(node, rtl if node.id == current else "Hi" if node.id[0] in "au" else "long " * 900) for node in nodes
    ]
    return Document(Conversation("c", "Broad", 1.0, 2.0, current), messages)


def test_the_current_message_and_its_link_are_visible_and_code_is_left_to_right_in_right_to_left_text(
    tmp_path,
):
    page = re.sub(
        r'<meta http-equiv="Content-Security-Policy"[^>]*>',
        "",
        "".join(html.write([broad_document("a20", num_above=200)])),
    )
    source, console, _ = browse(page.replace("</body>", f"<script>{LOOK}</script></body>"), tmp_path)
    title = re.search(r"<title>(.*?)</title>", source)
    assert title is not None and console == []
    assert json.loads(title[1]) == {"here": True, "way": "#n-a20", "seen": True, "text": "rtl", "code": ["ltr", "left"]}


def test_long_code_is_printed_to_its_end(tmp_path):
    file, paper = tmp_path / "page.html", tmp_path / "page.pdf"
    file.write_text("".join(html.write([broad_document("a0")])), encoding="utf-8")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
        f"--print-to-pdf={paper}", file.as_uri(),
    ]  # fmt: skip
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    # Its 400 lines take eight pages; the visible part in a window takes less than two.
    assert len(re.findall(rb"/Type /Page\b", paper.read_bytes())) > 5


def test_keys_links_folding_search_and_themes(document, tmp_path):
    page = "".join(html.write([document]))
    # The page's policy (CSP) would block the driver script.
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    source, console, _ = browse(page.replace("</body>", f"<script>{DRIVER}</script></body>"), tmp_path)
    assert console == []
    title = re.search(r"<title>(.*?)</title>", source)
    assert title is not None and title[1].startswith("{"), title
    assert json.loads(title[1].replace("&amp;", "&")) == {
        "start": "c0 r0-0 r0-1",
        "afterL": "c0 r0-0 r0-2",
        "afterH": "c0 r0-0 r0-1",
        "address": "#n-a1",
        "afterLink": "c0 r0-0 r0-2",
        "marked": "#n-a2",
        "afterBack": "c0 r0-0 r0-1",
        "rows": 5,
        "allFolded": 1,
        "unfolded": 5,
        "oneFolded": 3,
        "count": "1 message",
        "hits": [["#n-a2", "Two, cut"]],
        "afterSearch": "c0 r0-0 r0-2",
        "highlighted": 3,
        "dark": "rgb(20, 23, 28)",
        "light": "rgb(255, 255, 255)",
    }
