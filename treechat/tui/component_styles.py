"""Colours of component classes for widgets that draw lines themselves."""

from __future__ import annotations

from rich.style import Style
from textual.color import Color
from textual.widget import Widget


class ComponentStyles(Widget):
    """Mixed into a widget whose component classes are called `<prefix>--<name>`; named after the widget's first base.

    (Textual takes default styles and bindings from the first base alone.)

    A colour may be translucent in the style sheet (`$foreground 45%`): it is mixed with the widget's background, which
    Textual does not do for partial styles.
    """

    prefix = ""

    def styled(self, name: str) -> Style:
        """Colour and text style of a component, its background only where it has one."""
        styles = self.get_component_styles(f"{self.prefix}--{name}")
        under = self.background_colors[1]
        background: Color | None = None
        if styles.has_rule("background"):
            under = background = under + styles.background
        color = (under + styles.color).rich_color if styles.has_rule("color") else None
        bgcolor = background.rich_color if background is not None else None
        return Style(color=color, bgcolor=bgcolor) + styles.text_style
