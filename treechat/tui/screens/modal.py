"""A window over the conversation, which stays in sight behind it, dimmed."""

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
    """The lines of a screen. Textual's own takes 20 ms for each frame, most of it for the same few styles."""

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
    """A modal screen that is drawn once when it opens: it begins with the size's class, and dims at little cost."""

    def __init__(self) -> None:
        super().__init__()
        # Set later, when its size is told, all its widgets would be styled, laid out and drawn a second time.
        self.add_class(*(self.app.screen_stack[0].classes & SIZES))

    def render(self) -> RenderableType:
        stack = self.app.screen_stack
        tint = self.styles.background
        if self not in stack[1:] or tint.a in (0, 1):
            return super().render()
        # What takes a screen's rendering takes a visual, too.
        return cast("RenderableType", DimmedScreen(stack[stack.index(self) - 1], tint))
