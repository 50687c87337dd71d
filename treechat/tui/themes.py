"""A theme for those who need contrast: full white or black, no half-tones; what was dim stays legible."""

from __future__ import annotations

from textual.theme import Theme

HIGH_CONTRAST = Theme(
    name="high-contrast",
    primary="#4fc3ff",
    secondary="#ffd700",
    warning="#ffd700",
    error="#ff8080",
    success="#66ff66",
    accent="#ffff00",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#303030",
    boost="#303030",
    dark=True,
    text_alpha=1.0,
    variables={"border-blurred": "#ffffff", "scrollbar": "#ffffff", "scrollbar-active": "#ffff00"},
)

THEMES = (HIGH_CONTRAST,)
