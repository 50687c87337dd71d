"""A scroll view of drawn lines whose number changes often."""

from __future__ import annotations

from textual.geometry import Size
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.widget import Widget

from treechat.tui.widgets.line_widget import LineWidget


class LineScroll(ScrollView, LineWidget):
    """A scroll view with `num_lines` lines.

    Setting `num_lines` causes no new layout as long as the view's height and its scroll bar stay: a streaming reply
    adds a line several times a second.
    """

    num_lines: reactive[int] = reactive(0, repaint=False)

    def watch_num_lines(self, num_lines: int) -> None:
        size = Size(0, num_lines)
        height = self.container_size.height
        has_bar = self.styles.overflow_y == "scroll" or num_lines > height
        if not height or self.styles.auto_dimensions or has_bar != self.show_vertical_scrollbar:
            self.virtual_size = size
            return
        self.set_reactive(Widget.virtual_size, size)
        if self.show_vertical_scrollbar:
            self.vertical_scrollbar.window_virtual_size = num_lines
        self.scroll_y = self.validate_scroll_y(self.scroll_y)

    @property
    def is_at_end(self) -> bool:
        return self.scroll_y >= self.max_scroll_y - 1

    def to_line(self, line: int) -> None:
        """Scroll to make this line the first visible one, if enough lines follow it."""
        self.scroll_to(y=line, animate=False, force=True)
