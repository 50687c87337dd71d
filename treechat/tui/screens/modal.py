"""Base class of the modal screens: the conversation stays visible below them, dimmed."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, cast

from rich.console import RenderableType
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.screen import ModalScreen, Screen, ScreenResultType
from textual.strip import Strip
from textual.visual import RenderOptions, Visual

if TYPE_CHECKING:
    from textual.css.styles import RulesMap
    from textual.style import Style as TextualStyle

SIZES = frozenset({"-narrow", "-wide"})


class DimmedScreen(Visual):
    """The dimmed lines of a screen. Textual's version takes 20 ms per frame, mostly to blend the same few styles."""

    def __init__(self, screen: Screen[object], tint: Color) -> None:
        self._screen = screen
        self._tint = tint

    def render_strips(self, width: int, height: int | None, style: TextualStyle, options: RenderOptions) -> list[Strip]:
        tint = self._tint
        return [
            Strip([Segment(text, _tinted(style, tint)) for text, style, _ in strip], strip.cell_length)
            for strip in self._screen._compositor.render_strips()
        ]

    def get_optimal_width(self, rules: RulesMap, container_width: int) -> int:
        return container_width

    def get_height(self, rules: RulesMap, width: int) -> int:
        return self._screen.size.height


@lru_cache(maxsize=4_096)
def _tinted(style: Style | None, tint: Color) -> Style:
    if style is None:
        return Style()
    style = style.clear_meta_and_links()
    front, back = (
        None if color is None else (Color.from_rich_color(color) + tint).rich_color
        for color in (style.color, style.bgcolor)
    )
    return style + Style.from_color(front, back)


class Modal(ModalScreen[ScreenResultType]):
    """A modal screen that is drawn once when it opens: it has the size's class from the start, and dims cheaply."""

    def __init__(self) -> None:
        super().__init__()
        # If the class were set at the first resize, all widgets would be styled, laid out and drawn twice.
        self.add_class(*(self.app.screen_stack[0].classes & SIZES))

    def render(self) -> RenderableType:
        stack = self.app.screen_stack
        tint = self.styles.background
        if self not in stack[1:] or tint.a in (0, 1):
            return super().render()
        # Textual accepts a visual in place of a renderable.
        return cast("RenderableType", DimmedScreen(stack[stack.index(self) - 1], tint))
