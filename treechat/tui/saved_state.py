"""What a window leaves for the next start: the theme that was chosen, and how the models it used are found again.

It is a small file beside the database; where it is lost or damaged, things are chosen anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from treechat.paths import data_dir

MAX_MODELS = 100


def load_value(key: str) -> Any:
    """What was kept under a key; None where there is nothing."""
    return _read().get(key)


def save_value(key: str, value: Any) -> None:
    """For the next start. Where it cannot be written, it is chosen anew."""
    path = _path()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".part")
        partial.write_text(json.dumps(_read() | {key: value}) + "\n", encoding="utf-8")
        partial.replace(path)


def model_specs() -> Mapping[str, str]:
    """By a model's name, what loads it: a path, say, of which the name is the last part."""
    found = load_value("models")
    if not isinstance(found, dict):
        return {}
    return {name: spec for name, spec in found.items() if isinstance(spec, str)}


def save_model_spec(name: str, spec: str) -> None:
    specs = dict(model_specs())
    if specs.get(name) == spec:
        return
    specs.pop(name, None)
    save_value("models", dict([*specs.items(), (name, spec)][-MAX_MODELS:]))


def _path() -> Path:
    return data_dir() / "state.json"


def _read() -> dict[str, Any]:
    try:
        state = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) else {}
