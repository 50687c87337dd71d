"""Messages as strips: Markdown rendered once per (node, width, theme), and kept."""

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
"""Rendered messages kept; the least recently drawn are rendered again when they come into sight."""

MARKDOWN_LEN = 200_000
"""Characters from which on a message is shown as plain text: Markdown of that size would hold up the screen."""


class _Heading(Heading):
    """Headings stand at the left, without a box."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text


class _Code(CodeBlock):
    """Code on a panel of its own, without a colour scheme's background."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip()
        background = console.get_style("code.background").bgcolor
        color = background.name if background is not None else "default"
        yield Syntax(code, self.lexer_name, theme=self.theme, word_wrap=True, padding=(0, 1), background_color=color)


class DataMarkdown(Markdown):
    """Markdown in which HTML is text like any other, and links show where they lead and send nothing else."""

    elements = Markdown.elements | {"heading_open": _Heading, "fence": _Code, "code_block": _Code}

    def __init__(self, markup: str, code_theme: str) -> None:
        super().__init__("", code_theme=code_theme, hyperlinks=False)
        self.markup = markup
        parser = MarkdownIt("commonmark", {"html": False}).enable("strikethrough").enable("table")
        self.parsed = parser.parse(markup)


def markdown_theme(colors: Mapping[str, str]) -> Theme:
    """Rich's Markdown styles in the colours of a Textual theme (its `theme_variables`)."""
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
    """Bodies of messages as strips. `use` sets width and theme; what was rendered for others is dropped."""

    def __init__(self) -> None:
        self.width = 0
        self._key: object = None
        self._console = Console(file=io.StringIO(), width=80)
        self._code_theme = "monokai"
        self._bodies: OrderedDict[str, tuple[str, list[Strip]]] = OrderedDict()

    def use(self, width: int, theme_name: str, colors: Mapping[str, str], is_dark: bool) -> bool:
        """Whether anything changed."""
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
        """The message's text as strips of at most `width` cells; at least one."""
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
        """About how many strips the text takes, for what was not rendered yet."""
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
    """Text as it is, wrapped."""
    return [row_strip(row) for row in GrowingText(width, text.rstrip()).rows]


def row_strip(row: str) -> Strip:
    """One row of `GrowingText`; spaces that hang over its end are cut."""
    return Strip([Segment(row.rstrip())])


def _has_background(strip: Strip) -> bool:
    return any(segment.style is not None and segment.style.bgcolor is not None for segment in strip)


def _without_control(line: list[Segment]) -> list[Segment]:
    return [Segment(segment.text, segment.style) for segment in line if not segment.control]
