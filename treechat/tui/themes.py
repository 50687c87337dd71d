"""Themes of our own, short names for themes, and the theme of the previous run.

The high-contrast theme uses full white and black and no half-tones; dim text stays legible.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from textual.theme import Theme

from treechat.tui.saved_state import load_value

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
    panel="#202020",
    boost="#202020",
    dark=True,
    text_alpha=1.0,
    variables={"border-blurred": "#ffffff", "scrollbar": "#ffffff", "scrollbar-active": "#ffff00"},
)

LIGHT = Theme(
    name="light",
    primary="#005a9e",
    secondary="#3d5a70",
    warning="#b35900",
    error="#b3261e",
    success="#1a7f37",
    accent="#b35900",
    foreground="#1a1a1a",
    background="#ffffff",
    surface="#f5f5f5",
    panel="#e6e9ec",
    dark=False,
    variables={
        "text-primary": "#00457a",
        "text-secondary": "#334a5c",
        "text-accent": "#7d4000",
        "text-warning": "#7d4000",
        "text-success": "#145226",
        "text-error": "#8c1d18",
        "block-cursor-blurred-background": "#005a9e 20%",
    },
)

THEMES = (LIGHT, HIGH_CONTRAST)

ALIASES = {"auto": "", "dark": "textual-dark"}
"""Short names that the configuration accepts. auto selects dark or light."""

_LIGHT_BACKGROUNDS = ("7", "15")


def theme_name(configured: str | None, environ: Mapping[str, str]) -> str:
    """Return the theme's full name. For auto and None: light if COLORFGBG reports a light background, else dark."""
    if configured in ("auto", None):
        background = environ.get("COLORFGBG", "").rpartition(";")[2]
        configured = "light" if background in _LIGHT_BACKGROUNDS else "dark"
    return ALIASES.get(configured, configured)


def saved_theme(known: Collection[str]) -> str | None:
    """Return the theme that was last selected in the app; None if it is unknown or there is none."""
    name = load_value("theme")
    return name if isinstance(name, str) and name in known else None
