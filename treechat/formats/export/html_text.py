"""Render a message's Markdown as HTML: raw HTML is escaped, code is highlighted, nothing is fetched or executed."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.styles import get_style_by_name
from pygments.util import ClassNotFound

MAX_MARKDOWN_CHARS = 100_000
"""Limit for rendering Markdown; a longer message is plain text. A crafted one could take minutes to parse."""

MAX_CODE_CHARS = 10_000
"""Limit for highlighting code: some lexers take quadratic time."""

LIGHT, DARK = "friendly", "github-dark"
"""Styles of Pygments."""

_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_SIMPLE = re.compile(r"[^\W\d_][\w ,;?'()]*[.!]?")
_SAFE_LINK = re.compile(r"(https?|mailto):", re.IGNORECASE)


def escape_controls(text: str) -> str:
    """Replace each control character, bidi override and lone surrogate by its code, such as ⟨U+001B⟩."""
    return _CONTROL.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def escape(text: str) -> str:
    """Escape text for an element or a quoted attribute."""
    return html.escape(escape_controls(text))


def text_html(text: str) -> str:
    """Return the text as HTML blocks."""
    text = escape_controls(text.replace("\r\n", "\n"))
    if _SIMPLE.fullmatch(text):
        return f"<p>{html.escape(text)}</p>\n"
    if len(text) > MAX_MARKDOWN_CHARS:
        return f'<pre class="plain">{html.escape(text)}</pre>\n'
    rendered: str = _markdown().render(text)
    return rendered


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True, "xhtmlOut": False}).enable(
        ["table", "strikethrough"]
    )
    markdown.validateLink = lambda url: _SAFE_LINK.match(url) is not None  # type: ignore[method-assign]
    for name, rule in (("fence", _fence), ("code_block", _fence), ("image", _image)):
        markdown.add_render_rule(name, rule)
    for name in ("heading_open", "heading_close"):
        markdown.add_render_rule(name, _heading)
    for name in ("th_open", "td_open"):
        markdown.add_render_rule(name, _cell)
    markdown.add_render_rule("link_open", _link)
    return markdown


def _fence(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    token = tokens[index]
    name = token.info.split()[0] if token.info.strip() else ""
    label = f' data-language="{html.escape(name)}"' if name else ""
    return f'<pre class="code"{label} tabindex="0"><code>{_highlight(token.content, name)}</code></pre>\n'


def _highlight(code: str, name: str) -> str:
    if name and len(code) <= MAX_CODE_CHARS:
        try:
            lexer = get_lexer_by_name(name, stripnl=False, ensurenl=False)
        except ClassNotFound:
            return html.escape(code)
        highlighted: str = highlight(code, lexer, HtmlFormatter(nowrap=True))
        return highlighted
    return html.escape(code)


def _image(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    """Render an image as a link, because displaying it would fetch it."""
    token = tokens[index]
    name = escapeHtml(token.content or "image")
    return (
        f'<a class="image" rel="noopener noreferrer nofollow" href="{escapeHtml(str(token.attrs["src"]))}">{name}</a>'
    )


def _link(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    return self.renderToken(tokens, index, options, env)


def _cell(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    """Render the alignment of a cell as a class: the page's policy (CSP) forbids inline styles."""
    token = tokens[index]
    side = str(token.attrs.get("style", "")).removeprefix("text-align:")
    return f'<{token.tag} class="{side}">' if side in ("center", "right") else f"<{token.tag}>"


def _heading(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    """Render a heading below the level of the page's own headings."""
    level = min(int(tokens[index].tag[1:]) + 3, 6)
    return f"<h{level}>" if tokens[index].nesting > 0 else f"</h{level}>\n"


def code_css() -> str:
    """Return the CSS of Pygments' token classes for the light and the dark theme."""
    light, dark = _colours(LIGHT), _colours(DARK)
    rules = []
    for name in sorted(light.keys() | dark.keys()):
        a, b = light.get(name, {}), dark.get(name, {})
        declarations = []
        if a.get("color") or b.get("color"):
            pair = f"light-dark(#{a.get('color') or '24292f'}, #{b.get('color') or 'e6edf3'})"
            declarations.append(f"color:{pair}")
        declarations += ["font-weight:600"] if a.get("bold") or b.get("bold") else []
        declarations += ["font-style:italic"] if a.get("italic") or b.get("italic") else []
        if declarations:
            rules.append(f".code .{name}{{{';'.join(declarations)}}}")
    return "\n".join(rules)


def _colours(style_name: str) -> dict[str, dict[str, Any]]:
    """Return the properties of each token class in a style."""
    formatter = HtmlFormatter(style=style_name)
    classes = {token: formatter._get_css_class(token) for token, _ in get_style_by_name(style_name)}
    return {name: dict(style) for token, style in get_style_by_name(style_name) if (name := classes[token])}
