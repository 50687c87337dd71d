"""Base class of widgets that draw their own lines in the colours of component classes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget


class LineWidget(Widget):
    """A widget whose component classes are named `<prefix>--<name>`.

    A subclass lists a Textual base class before it: Textual takes default styles and bindings from the first base.

    A colour of the style sheet may be translucent (`$foreground 45%`). It is blended with the widget's background;
    Textual does not blend partial styles. Styles are cached until the whole widget is refreshed, which happens when
    the style sheet or the theme changes.
    """

    prefix = ""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._style_cache: dict[str, Style] = {}
        super().__init__(*args, **options)

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Self:
        if not regions:
            self._style_cache.clear()
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def redraw_lines(self, first: int, end: int) -> None:
        """Redraw the visible ones of the content's lines from `first` to before `end`."""
        first, end = max(first, 0), min(end, self.size.height)
        if first < end:
            self.refresh(Region(0, first, self.size.width, end - first))

    @property
    def rich_style(self) -> Style:
        style = self._style_cache.get("")
        if style is None:
            style = self._style_cache[""] = super().rich_style
        return style

    def strip_of(self, segments: Iterable[Segment], width: int) -> Strip:
        """Return one line, padded to `width` cells. Builds one Strip only, because each Strip creates seven caches."""
        line = list(Segment.apply_style(segments, self.rich_style))
        missing = width - sum(segment.cell_length for segment in line)
        if missing < 0:
            return Strip(line).adjust_cell_length(width)
        return Strip([*line, Segment(" " * missing, self.rich_style)] if missing else line, width)

    def style_of(self, name: str) -> Style:
        """Return the colour and text style of a component, and its background if it has one."""
        style = self._style_cache.get(name)
        if style is None:
            style = self._style_cache[name] = self._blended_style(name)
        return style

    def _blended_style(self, name: str) -> Style:
        styles = self.get_component_styles(f"{self.prefix}--{name}")
        under = self.background_colors[1]
        background: Color | None = None
        if styles.has_rule("background"):
            under = background = under + styles.background
        color = (under + styles.color).rich_color if styles.has_rule("color") else None
        bgcolor = background.rich_color if background is not None else None
        return Style(color=color, bgcolor=bgcolor) + styles.text_style
