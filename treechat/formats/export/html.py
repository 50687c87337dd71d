"""Write one self-contained HTML page with every branch.

Without scripts it is a document: all runs in sequence, each with links to its child runs, and the tree as a table of
contents at the end. With scripts (page/page.js) the tree folds and one branch is visible, as in the app. The page's
policy (CSP) allows only that script, by its hash, and no fetches.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib import resources
from itertools import chain, islice
from typing import Any
from urllib.parse import quote

from treechat.formats.document import Document, Message
from treechat.formats.export.document_runs import NumberedRun, runs_of
from treechat.formats.export.html_text import code_css, escape, text_html
from treechat.formats.export.markdown import ROLE_NAMES
from treechat.tree import Turn

DEPTHS = 12
"""Limit on the indentation of the tree, in steps."""

_FLAG = 'document.documentElement.className="js"'
_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src '{style_hash}'; script-src \
'{flag_hash}' '{script_hash}'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<meta name="generator" content="treechat">
<title>{title}</title>
<style>{style}</style>
<script>{flag}</script>
</head>
<body>
<header>
<a class="skip" href="#tree">To the branches</a>
<div class="bar" role="toolbar" aria-label="Page">
<button type="button" id="toggle" title="Show or hide the tree (b)" aria-controls="tree">Branches</button>
<input type="search" id="search" placeholder="Search  /" aria-label="Search all branches">
<output id="count" for="search"></output>
<button type="button" id="theme" title="Colours (t)">Theme: auto</button>
<button type="button" id="help" title="Keys (?)" aria-controls="keys">Keys</button>
</div>
<dl id="keys" hidden>
<dt>j k</dt><dd>next, previous message</dd>
<dt>h l</dt><dd>alternative before, after</dd>
<dt>[ ]</dt><dd>fork above, below</dd>
<dt>/ &nbsp; n N</dt><dd>search; next, previous hit</dd>
<dt>b</dt><dd>show or hide the tree; in it: arrows, enter, space folds</dd>
<dt>f F</dt><dd>fold or unfold this branch, all of them</dd>
<dt>t</dt><dd>colours: auto, dark, light</dd>
</dl>
</header>
<main>
"""
_TAIL = """</main>
<nav id="tree" aria-label="Branches">
<ol id="hits" hidden></ol>
<h2>Branches</h2>
<ol id="rows">
{rows}</ol>
</nav>
<script>{script}</script>
</body>
</html>
"""


def write(documents: Iterable[Document]) -> Iterator[str]:
    """Yield the page of one or several conversations in pieces. `documents` is consumed lazily."""
    remaining = iter(documents)
    first = list(islice(remaining, 2))
    title = _title(first[0]) if len(first) == 1 else "Conversations"
    style, script = _asset("page.css") + _indents() + code_css(), _asset("page.js")
    yield _HEAD.format(
        title=escape(title), style=style, flag=_FLAG,
        style_hash=_hash(style), flag_hash=_hash(_FLAG), script_hash=_hash(script),
    )  # fmt: skip
    rows: list[str] = []
    for number, document in enumerate(chain(first, remaining)):
        yield from _conversation(number, document, rows)
    yield _TAIL.format(rows="".join(rows), script=script)


def _asset(name: str) -> str:
    return resources.files("treechat.formats.export").joinpath("page", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _indents() -> str:
    return "".join(f"#rows .d{depth}{{padding-inline-start:{0.9 * depth:.1f}rem}}\n" for depth in range(DEPTHS + 1))


def _conversation(number: int, document: Document, rows: list[str]) -> Iterator[str]:
    """Yield the sections of a conversation; append one row of the tree per section to `rows`, in the same order."""
    by_id = {message.node.id: message for message in document.messages}
    runs = list(runs_of(document.tree))
    children_of: dict[int | None, list[int]] = {}
    for run in runs:
        children_of.setdefault(run.parent, []).append(run.index)
    num_messages = len(document.messages)
    created = _time(document.conversation.created_at)
    counts = f"{num_messages:,} message{'' if num_messages == 1 else 's'}"
    top = f"c{number}"
    yield f'<section class="top" id="{top}"><h1 dir="auto">{escape(_title(document))}</h1>\n'
    yield f"<p>{' · '.join(part for part in (counts, created) if part)}</p>\n"
    roots = [runs[index] for index in children_of.get(None, ())]
    yield _branch_links(roots, by_id) if len(roots) > 1 else ""
    yield "</section>\n"
    name = f'<a href="#{top}"><bdi>{escape(_title(document))}</bdi></a>'
    rows.append(f'<li class="d0">{name} <small>{num_messages:,}</small></li>\n')
    current_id = document.conversation.current_id
    for run in runs:
        parent_anchor = top if run.parent is None else f"r{number}-{run.parent}"
        below = [runs[index] for index in children_of.get(run.index, ())]
        yield f'<section class="run" id="r{number}-{run.index}" data-up="{parent_anchor}">\n'
        yield _run_heading(run, None if run.parent is None else runs[run.parent], by_id)
        for node_id in run.node_ids:
            yield _article(by_id[node_id], node_id == current_id)
        yield _branch_links(below, by_id) if below else ""
        yield "</section>\n"
        rows.append(_row(run, by_id))


def _title(document: Document) -> str:
    return " ".join(document.conversation.title.split()) or "Untitled"


def _name(run: NumberedRun, by_id: dict[str, Message]) -> str:
    node = by_id[run.node_ids[0]].node
    return node.label or node.preview[:80] or "(empty)"


def _anchor(node_id: str) -> str:
    return "n-" + quote(node_id, safe="", errors="replace")


def _run_heading(run: NumberedRun, parent: NumberedRun | None, by_id: dict[str, Message]) -> str:
    link = f' <a href="#{_anchor(parent.node_ids[-1])}">continues from {parent.number}</a>' if parent else ""
    return f"<h2>{run.number} · <bdi>{escape(_name(run, by_id))}</bdi>{link}</h2>\n"


def _branch_links(runs: list[NumberedRun], by_id: dict[str, Message]) -> str:
    items = "".join(
        f'<li><a href="#{_anchor(run.node_ids[0])}">{run.number} <bdi>{escape(_name(run, by_id))}</bdi></a></li>\n'
        for run in runs
    )
    return f'<nav class="ways" aria-label="Continuations">\n<ol>\n{items}</ol>\n</nav>\n'


def _row(run: NumberedRun, by_id: dict[str, Message]) -> str:
    is_bookmarked = any(by_id[node_id].node.bookmarked for node_id in run.node_ids)
    depth = min(run.depth + 1, DEPTHS)
    name = f"<b>{run.number}</b> <bdi>{escape(_name(run, by_id))}</bdi>"
    count = f"<small>{len(run.node_ids):,}{' ★' if is_bookmarked else ''}</small>"
    return f'<li class="d{depth}"><a href="#{_anchor(run.node_ids[0])}">{name}</a> {count}</li>\n'


def _article(message: Message, is_current: bool) -> str:
    node = message.node
    notes = [f'<span class="label"><bdi>{escape(label)}</bdi></span>' for label in message.labels]
    notes += ['<span title="bookmarked">★</span>'] if node.bookmarked else []
    notes += [f'<span class="status">{node.status}</span>'] if node.status != "complete" else []
    if time := _time(node.created_at):
        notes.append(time)
    anchor = _anchor(node.id)
    heading = f'<h3><a href="#{escape(anchor)}">{ROLE_NAMES[node.role]}</a> {" ".join(notes)}</h3>'
    current = " data-current" if is_current else ""
    text = text_html(message.text) if message.text.strip() else '<p class="empty">(empty)</p>\n'
    turn = f'<p class="turn">{_turn(message.turn)}</p>\n' if message.turn else ""
    return (
        f'<article class="{node.role}" id="{escape(anchor)}" tabindex="-1"{current}>\n{heading}\n'
        f'<div class="text" dir="auto">\n{text}</div>\n{_parts(message)}{turn}</article>\n'
    )


def _parts(message: Message) -> str:
    """Return the stored parts of an imported message, folded: thoughts, tool calls and results."""
    parts = message.meta.get("parts")
    return "".join(_part(part) for part in parts if isinstance(part, dict)) if isinstance(parts, list) else ""


def _part(part: dict[str, Any]) -> str:
    kind, name, text = part.get("type"), part.get("name"), part.get("text")
    match kind:
        case "thoughts" if isinstance(text, str):
            body = f'<div class="text" dir="auto">{text_html(text)}</div>'
        case "call" | "result":
            value = part.get("arguments") if kind == "call" else text
            value = value if isinstance(value, str) else _json(value)
            body = f'<pre class="plain">{escape(value)}</pre>'
        case _:
            return ""
    title = f"{kind} · {name}" if isinstance(name, str) else str(kind)
    return f'<details class="part"><summary>{escape(title)}</summary>\n{body}\n</details>\n'


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, indent=2)
    except RecursionError:
        return "(nested too deeply to show)"


def _turn(turn: Turn) -> str:
    parts = [escape(turn.model)]
    if turn.prompt_tokens:
        num_reused = (turn.cached_tokens or 0) + (turn.restored_tokens or 0)
        parts.append(f"reused {num_reused:,} · computed {turn.computed_tokens or 0:,}")
    if turn.completion_tokens:
        parts.append(f"{turn.completion_tokens:,} tokens")
    if turn.tokens_per_s:
        parts.append(f"{turn.tokens_per_s:,.1f} tok/s")
    if turn.seed is not None:
        parts.append(f"seed {turn.seed}")
    return " · ".join(parts)


def _time(seconds: float) -> str:
    """Return a `time` element, empty if the time is unknown or out of range."""
    try:
        moment = datetime.fromtimestamp(seconds, UTC) if seconds > 0 else None
    except (OverflowError, OSError, ValueError):
        return ""
    return f'<time datetime="{moment:%Y-%m-%dT%H:%M:%SZ}">{moment:%Y-%m-%d %H:%M} UTC</time>' if moment else ""
