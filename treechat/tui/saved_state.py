"""Persist small values between runs: the selected theme, and the spec of each model that was used.

The values are in a JSON file in the data directory. If it is lost or damaged, all values are absent.
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
    """Return the value of a key, or None."""
    return _read().get(key)


def save_value(key: str, value: Any) -> None:
    """Save the value of a key for the next run. A failed write is ignored."""
    path = _path()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".part")
        partial.write_text(json.dumps(_read() | {key: value}) + "\n", encoding="utf-8")
        partial.replace(path)


def model_specs() -> Mapping[str, str]:
    """Return the spec that loads each model, by model name. A spec may be a path; the name is its last part."""
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
