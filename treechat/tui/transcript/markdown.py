"""Render messages to strips: Markdown is rendered once per (node, width, theme) and cached."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Mapping

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown
from rich.segment import Segment
from rich.style import Style
from rich.syntax import Syntax
from rich.theme import Theme
from textual.strip import Strip

from treechat.tui.safe_text import GrowingText, escape_controls

MAX_CACHED = 1_500
"""Rendered messages in the cache. The least recently drawn one is dropped first."""

MARKDOWN_LEN = 200_000
"""Messages of at least this many characters are drawn as plain text: rendering their Markdown would block the UI."""


class _Heading(Heading):
    """A heading at the left, without a box."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text


class _Code(CodeBlock):
    """A code block on the panel colour instead of the colour scheme's background."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip()
        background = console.get_style("code.background").bgcolor
        color = background.name if background is not None else "default"
        yield Syntax(code, self.lexer_name, theme=self.theme, word_wrap=True, padding=(0, 1), background_color=color)


class DataMarkdown(Markdown):
    """Markdown that draws HTML as text, and links with their address and without terminal hyperlinks."""

    elements = Markdown.elements | {"heading_open": _Heading, "fence": _Code, "code_block": _Code}

    def __init__(self, markup: str, code_theme: str) -> None:
        super().__init__("", code_theme=code_theme, hyperlinks=False)
        self.markup = markup
        parser = MarkdownIt("commonmark", {"html": False}).enable("strikethrough").enable("table")
        self.parsed = parser.parse(markup)


def markdown_theme(colors: Mapping[str, str]) -> Theme:
    """Return Rich's Markdown styles in the colours of a Textual theme.

    colors: the app's `theme_variables`.
    """
    accent, strong = colors.get("text-accent", "yellow"), colors.get("text-primary", "cyan")
    panel = colors.get("panel", "black")
    styles = {
        "markdown.code": Style.parse(f"{accent} on {panel}"),
        "markdown.item.bullet": Style.parse(strong),
        "markdown.item.number": Style.parse(strong),
        "markdown.link": Style.parse(f"underline {strong}"),
        "markdown.link_url": Style.parse(f"underline {strong}"),
        "markdown.block_quote": Style.parse("italic"),
        "markdown.hr": Style.parse(panel),
        "markdown.table.border": Style.parse(panel),
        "markdown.table.header": Style.parse(f"bold {strong}"),
        "code.background": Style.parse(f"on {panel}"),
    }
    styles |= {f"markdown.h{n}": Style.parse(f"bold {strong}") for n in range(1, 7)}
    return Theme(styles)


class StripCache:
    """Cache message bodies as strips. `use` sets width and theme, and clears the cache if they changed."""

    def __init__(self) -> None:
        self.width = 0
        self._key: object = None
        self._console = Console(file=io.StringIO(), width=80)
        self._code_theme = "monokai"
        self._bodies: OrderedDict[str, tuple[str, list[Strip]]] = OrderedDict()

    def use(self, width: int, theme_name: str, colors: Mapping[str, str], is_dark: bool) -> bool:
        """Set the width in cells and the theme; return whether either changed."""
        key = (width, theme_name)
        if key == self._key:
            return False
        self._key = key
        self.width = width
        self._bodies.clear()
        self._code_theme = "monokai" if is_dark else "friendly"
        self._console = Console(
            file=io.StringIO(),
            width=width,
            color_system="truecolor",
            force_terminal=True,
            legacy_windows=False,
            theme=markdown_theme(colors),
        )
        return True

    def body(self, node_id: str, text: str, is_markdown: bool) -> list[Strip]:
        """Return the message's text as one or more strips of at most `width` cells."""
        cached = self._bodies.get(node_id)
        if cached is not None and cached[0] == text:
            self._bodies.move_to_end(node_id)
            return cached[1]
        strips = self._markdown(text) if is_markdown and len(text) < MARKDOWN_LEN else wrapped_strips(text, self.width)
        self._bodies[node_id] = (text, strips)
        if len(self._bodies) > MAX_CACHED:
            self._bodies.popitem(last=False)
        return strips

    def estimate(self, text: str) -> int:
        """Estimate the number of strips of a text that is not rendered yet."""
        return sum(len(line) // self.width + 1 for line in text.split("\n")) if text else 1

    def _markdown(self, text: str) -> list[Strip]:
        options = self._console.options.update(width=self.width, highlight=False)
        lines = self._console.render_lines(DataMarkdown(escape_controls(text), self._code_theme), options, pad=False)
        strips = [Strip(_without_control(line)) for line in lines]
        # Rich puts empty lines around some blocks and after others: one between any two is enough.
        trimmed: list[Strip] = []
        for strip in strips:
            if strip.text.strip() or _has_background(strip) or (trimmed and trimmed[-1].text.strip()):
                trimmed.append(strip)
        while len(trimmed) > 1 and not trimmed[-1].text.strip():
            trimmed.pop()
        return trimmed or [Strip([])]


def wrapped_strips(text: str, width: int) -> list[Strip]:
    """Return plain text as wrapped strips."""
    return [row_strip(row) for row in GrowingText(width, text.rstrip()).rows]


def row_strip(row: str) -> Strip:
    """Return one row of `GrowingText` as a strip, without trailing spaces."""
    return Strip([Segment(row.rstrip())])


def _has_background(strip: Strip) -> bool:
    return any(segment.style is not None and segment.style.bgcolor is not None for segment in strip)


def _without_control(line: list[Segment]) -> list[Segment]:
    return [Segment(segment.text, segment.style) for segment in line if not segment.control]
