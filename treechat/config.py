"""The configuration: one TOML file, read into one frozen value.

A key that is unknown is named with its line and its nearest match; a value of the wrong type with what was expected.
No file means all defaults. `to_toml` writes the same form that `load_config` reads.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from treechat.errors import ConfigError
from treechat.paths import config_dir


@dataclass(frozen=True)
class Config:
    """What `config.toml` can say. None means that treechat chooses.

    model: a hub id, a directory or a .gguf file; None is the default model. db: the database; None is the platform's
    place. theme: a Textual theme. system_prompt: opens each new conversation. max_tokens: longest reply. temperature,
    top_p, top_k, min_p: None takes what the model's authors recommend; temperature 0 is greedy; top_k 0, top_p 1 and
    min_p 0 cut nothing. device, dtype, kv_tokens, max_batch, num_threads: how the engine runs. kv_disk_mb: megabytes of
    a model's KV that are kept on disk for the next start; 0 keeps none. keymap: binding id to key.
    """

    model: str | None = None
    db: Path | None = None
    theme: str = "textual-dark"
    system_prompt: str | None = None
    max_tokens: int = 1024
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    device: str | None = None
    dtype: str | None = None
    kv_tokens: int | None = None
    kv_disk_mb: int = 256
    max_batch: int = 8
    num_threads: int | None = None
    keymap: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Kind:
    """What a key accepts: how to name it, how to recognise it, how to turn it into the field's value."""

    name: str
    holds: Callable[[Any], bool]
    convert: Callable[[Any], Any] = lambda value: value


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _at_least(least: int) -> _Kind:
    return _Kind(f"a whole number of at least {least}", lambda v: _is_int(v) and v >= least)


def _number(low: float, high: float, name: str) -> _Kind:
    def holds(value: Any) -> bool:
        return (_is_int(value) or isinstance(value, float)) and low <= value <= high

    return _Kind(name, holds, float)


_STRING = _Kind("a string", lambda v: isinstance(v, str))
_PATH = _Kind("a string with a path", lambda v: isinstance(v, str) and v != "", lambda v: Path(v).expanduser())
_SEED = _Kind("a whole number", _is_int)
_SHARE = _number(0.0, 1.0, "a number from 0 to 1")
_KEYMAP = _Kind(
    "a table of binding ids and keys, each a string",
    lambda v: isinstance(v, dict) and all(isinstance(key, str) for key in v.values()),
)

_KINDS: dict[str, _Kind] = {
    "model": _STRING,
    "db": _PATH,
    "theme": _STRING,
    "system_prompt": _STRING,
    "max_tokens": _at_least(1),
    "temperature": _number(0.0, 100.0, "a number of 0 or more"),
    "top_p": _Kind("a number above 0 and up to 1", lambda v: _SHARE.holds(v) and v > 0, float),
    "top_k": _at_least(0),
    "min_p": _SHARE,
    "seed": _SEED,
    "device": _STRING,
    "dtype": _Kind("float32, bfloat16 or float16", lambda v: v in ("float32", "bfloat16", "float16")),
    "kv_tokens": _at_least(1),
    "kv_disk_mb": _at_least(0),
    "max_batch": _at_least(1),
    "num_threads": _at_least(1),
    "keymap": _KEYMAP,
}


def config_path() -> Path:
    """Where the configuration is read from, whether or not the file exists."""
    return config_dir() / "config.toml"


def load_config(path: Path | None = None) -> Config:
    """Read `path`, or the platform's file for None; all defaults where there is no file.

    Raises ConfigError, with the line, for an unknown key, a wrong type, or what is not TOML or cannot be read.
    """
    path = config_path() if path is None else path
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Config()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "It must be a UTF-8 text file") from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}", 'Strings need quotes: theme = "textual-dark"') from error
    return Config(**{key: _value(path, text, key, value) for key, value in table.items()})


def _value(path: Path, text: str, key: str, value: Any) -> Any:
    kind = _KINDS.get(key)
    where = f"{path}, line {_line_of(text, key)}"
    if kind is None:
        near = difflib.get_close_matches(key, _KINDS, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(_KINDS)}"
        raise ConfigError(f"{where}: unknown key {key!r}", hint)
    if not kind.holds(value):
        raise ConfigError(f"{where}: {key} must be {kind.name}, not {_show(value)}")
    return kind.convert(value)


def _show(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _line_of(text: str, key: str) -> int:
    """The line, from 1, on which a top-level key or table stands. tomllib keeps none, so the text is searched."""
    pattern = re.compile(rf"""^\s*\[*\s*["']?{re.escape(key)}["']?\s*[\]=.]""")
    return next((i for i, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)


def to_toml(config: Config) -> str:
    """The effective configuration as TOML that can be read again; what treechat chooses itself is a comment."""
    lines, tables = [], []
    for item in fields(config):
        value = getattr(config, item.name)
        if isinstance(value, Mapping):
            entries = [f"{_show(key)} = {_show(entry)}" for key, entry in value.items()]
            tables += ["", f"[{item.name}]", *entries]
        elif value is None:
            lines.append(f"# {item.name} is chosen by treechat")
        else:
            lines.append(f"{item.name} = {_show(str(value) if isinstance(value, Path) else value)}")
    return "\n".join(lines + tables) + "\n"
