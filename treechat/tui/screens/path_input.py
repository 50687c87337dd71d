"""Parse paths that were typed, pasted or dropped into the terminal, and complete them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlparse

from treechat.formats.reading.inputs import SUFFIXES

MAX_COMPLETIONS = 200
"""Maximum number of completions."""

READABLE_EXT = (*SUFFIXES, ".zip")


def parse_paths(text: str) -> list[Path]:
    """Return the paths of a line: the whole line as one path, or several paths quoted or escaped as in a shell.

    file:// and ~ are resolved. The result includes paths that do not exist, to report them.
    """
    text = text.strip()
    if not text:
        return []
    whole = _path(text)
    if _exists(whole):
        return [whole]
    try:
        words = shlex.split(text)
    except ValueError:
        return [whole]
    paths = [_path(word) for word in words]
    return paths if len(paths) == 1 or all(map(_exists, paths)) else [whole]


def first_missing(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if not _exists(path)), None)


def completions(text: str) -> list[Path]:
    """Return the completions of a typed path by name: folders, and files that an import can read.

    For an empty text: the readable files of the current folder and of Downloads, newest first.
    """
    if not text.strip():
        found = [*_entries(Path.cwd()), *_entries(Path.home() / "Downloads")]
        return sorted((path for path in found if not path.is_dir()), key=_changed, reverse=True)[:MAX_COMPLETIONS]
    ends = text.rstrip().endswith(("/", os.sep))
    path = next(iter(parse_paths(text.lstrip("'\"") if ends or not text.endswith(("'", '"')) else text)), Path())
    folder, begin = (path, "") if ends else (path.parent, path.name)
    found = [
        entry
        for entry in _entries(folder)
        if entry.name.casefold().startswith(begin.casefold()) and entry.name.startswith(".") == begin.startswith(".")
    ]
    return sorted(found, key=lambda entry: (not entry.is_dir(), entry.name.casefold()))[:MAX_COMPLETIONS]


def short_path(path: Path) -> str:
    """Return the shortest text of a path: relative to ~ if possible, with a final / for a folder."""
    try:
        text = f"~/{path.relative_to(Path.home())}" if path.is_absolute() else str(path)
    except (ValueError, RuntimeError):
        text = str(path)
    return f"{text}/" if path.is_dir() else text


def _path(text: str) -> Path:
    if text.casefold().startswith("file://"):
        text = unquote(urlparse(text).path)
    try:
        return Path(text).expanduser()
    except RuntimeError:
        # An unknown user name after ~.
        return Path(text)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _entries(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(each.path) for each in entries if each.is_dir() or each.name.lower().endswith(READABLE_EXT)]
    except (OSError, ValueError):
        return []


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
