"""Check the keys and the theme of the configuration against the bindings and themes of the app."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

from textual.keys import ASCII_KEY_NAMES, KEY_NAME_REPLACEMENTS, Keys, key_to_character
from textual.theme import BUILTIN_THEMES

from treechat.config import Config, config_path, line_of, nearest
from treechat.errors import ConfigError
from treechat.tui.bindings import KEYS, KeyBinding
from treechat.tui.themes import ALIASES, THEMES

_KEY_NAMES = {key.value for key in Keys} | set(KEY_NAME_REPLACEMENTS.values())
_PLACES_TOGETHER = {"panes": ("panes", "everywhere"), "composer": ("composer", "everywhere")}


def key_names(keys: str) -> list[str]:
    """Return Textual's names of comma-separated keys: `n, ?` is `n`, `question_mark`."""
    parts = [keys] if keys == "," else [part.strip() for part in keys.split(",")]
    names = []
    for part in parts:
        *modifiers, last = part.rsplit("+", 1) if part != "+" else (part,)
        names.append("+".join([*modifiers, _character_name(last) if len(last) == 1 else last]))
    return names


def _character_name(character: str) -> str:
    """Return Textual's name of a character's key: `?` is `question_mark`."""
    name = character
    if not character.isalnum():
        name = unicodedata.name(character, "").lower().replace("-", "_").replace(" ", "_")
        name = name or ASCII_KEY_NAMES.get(character, character)
    return KEY_NAME_REPLACEMENTS.get(name, name)


def _is_key(name: str) -> bool:
    *modifiers, last = name.split("+")
    if not set(modifiers) <= {"ctrl", "shift", "alt", "super", "hyper", "meta"}:
        return False
    return len(last) == 1 or last in _KEY_NAMES or name in _KEY_NAMES or key_to_character(last) is not None


def textual_keymap(keymap: Mapping[str, str]) -> dict[str, str]:
    """Return the keymap in the form that Textual expects."""
    return {binding_id: ",".join(key_names(keys)) for binding_id, keys in keymap.items()}


def check_appearance(config: Config, path: Path | None = None) -> None:
    """Raise ConfigError for an unknown theme, binding or key, and for a key with two bindings in one place.

    path: the configuration file; the error names the line in it. None: the platform's default file.
    """
    path = config_path() if path is None else path
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    themes = [*ALIASES, *(theme.name for theme in THEMES), *BUILTIN_THEMES]
    if config.theme is not None and config.theme not in themes:
        hint = nearest(config.theme, themes, "Themes")
        raise ConfigError(f"{path}, line {line_of(text, 'theme')}: unknown theme {config.theme!r}", hint)
    known = {key.id: key for key in KEYS}
    first = line_of(text, "keymap")

    def where(binding_id: str) -> str:
        quoted = next((i for i, line in enumerate(text.splitlines(), 1) if i > first and binding_id in line), first)
        return f"{path}, line {quoted}"

    for binding_id, keys in config.keymap.items():
        if binding_id not in known:
            hint = nearest(binding_id, known, "f1 shows the names of all; known")
            raise ConfigError(f"{where(binding_id)}: no binding is called {binding_id!r}", hint)
        wrong = next((name for name in key_names(keys) if not _is_key(name)), None)
        if wrong is not None:
            raise ConfigError(
                f"{where(binding_id)}: {wrong!r} is not a key",
                "Keys are written as n, N, ctrl+n, f5, pagedown or comma.",
            )
    keymap = textual_keymap(config.keymap)
    for place in dict.fromkeys(key.place for key in KEYS):
        if clash := _clash(keymap, _PLACES_TOGETHER.get(place, (place,))):
            name, one, other = clash
            mine, theirs = (one, other) if one.id in keymap else (other, one)
            raise ConfigError(
                f"{where(mine.id)}: {name} is bound to both {mine.id} and {theirs.id}",
                f"Give {theirs.id} ({theirs.title}) another key in [keymap].",
            )


def _clash(keymap: Mapping[str, str], places: tuple[str, ...]) -> tuple[str, KeyBinding, KeyBinding] | None:
    """Return a key that has two bindings in these places, at least one of them configured; None if there is none."""
    bound = [(name, key) for key in KEYS if key.place in places for name in keymap.get(key.id, key.keys).split(",")]
    bound.sort(key=lambda pair: pair[0])
    for name, group in groupby(bound, lambda pair: pair[0]):
        keys = [key for _, key in group]
        if len(keys) > 1 and any(key.id in keymap for key in keys):
            return name, keys[0], keys[1]
    return None
