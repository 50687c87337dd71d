"""The configuration: one TOML file, read into one frozen value.

The error for an unknown key has its line and the nearest known key; the error for a wrong value has the expected form.
Without a file, all values are defaults. `to_toml` writes the form that `load_config` reads. A preset is a named set of
sampling parameters and a system prompt: a table `[presets.NAME]` with the keys of `PRESET_KEYS`.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from treechat.errors import ConfigError
from treechat.paths import config_dir


@dataclass(frozen=True, slots=True)
class Sampling:
    """The sampling parameters that a user, a preset or a model's authors can set. None leaves the choice to others.

    temperature: 0 is greedy.
    top_p: the probability that the most likely tokens must reach together; 1 cuts nothing.
    top_k: the number of most likely tokens; 0 cuts nothing.
    min_p: the smallest share of the most likely token's probability; 0 cuts nothing.
    repetition_penalty: 1 changes nothing.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Sampling:
        """Take the sampling parameters out of `values`; other keys are ignored."""
        return cls(**{key: values[key] for key in SAMPLING_KEYS if key in values})

    def chosen(self) -> dict[str, Any]:
        """Return the parameters that are not None, by name."""
        return {key: value for key in SAMPLING_KEYS if (value := getattr(self, key)) is not None}

    def over(self, defaults: Sampling) -> Sampling:
        """Return these parameters, with those of `defaults` in place of None."""
        return Sampling.of(defaults.chosen() | self.chosen())


SAMPLING_KEYS = tuple(item.name for item in fields(Sampling))


@dataclass(frozen=True)
class Config:
    """The values of `config.toml`. None means that treechat chooses.

    model: a hub id, a directory or a .gguf file; None is the default model.
    db: the database file; None is the platform's data directory.
    theme: auto, dark, light, high-contrast or a theme of Textual's; None takes the last choice in the app, else auto.
    system_prompt: the first message of each new conversation.
    max_tokens: the longest reply, in tokens.
    sampling: top-level keys of the file; None takes what the model's authors recommend.
    seed: None draws a new one for each reply.
    device: the device of the engine.
    dtype: the number format of the weights.
    kv_tokens: the slots of the cache, in tokens.
    host_tokens: the KV that a GPU may move to host memory, in tokens.
    kv_disk_mb: the KV of one model that is saved on disk for the next start, in megabytes; 0 saves none.
    max_batch: the most requests in one step.
    num_threads: the threads of the engine on a CPU.
    deterministic: a reply is the same to the bit in any batch; replies generated side by side are slower.
    keymap: keys by binding id.
    presets: values by name.
    """

    model: str | None = None
    db: Path | None = None
    theme: str | None = None
    system_prompt: str | None = None
    max_tokens: int = 1024
    sampling: Sampling = field(default_factory=Sampling)
    seed: int | None = None
    device: str | None = None
    dtype: str | None = None
    kv_tokens: int | None = None
    host_tokens: int = 0
    kv_disk_mb: int = 256
    max_batch: int = 8
    num_threads: int | None = None
    deterministic: bool = False
    keymap: Mapping[str, str] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Config:
        """Build a configuration from values by the keys of the file."""
        others = {key: value for key, value in values.items() if key not in SAMPLING_KEYS}
        return cls(**others, sampling=Sampling.of(values))

    def by_key(self) -> dict[str, Any]:
        """Return all values by the keys of the file."""
        values: dict[str, Any] = {}
        for item in fields(self):
            if item.name == "sampling":
                values |= {key: getattr(self.sampling, key) for key in SAMPLING_KEYS}
            else:
                values[item.name] = getattr(self, item.name)
        return values


@dataclass(frozen=True)
class _Kind:
    """The values that a key accepts.

    name: the description in error messages.
    holds: returns whether a value is valid.
    convert: converts a TOML value to the field's value.
    reads: converts the text of a user to a value.
    """

    name: str
    holds: Callable[[Any], bool]
    convert: Callable[[Any], Any] = lambda value: value
    reads: Callable[[str], Any] = str


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _at_least(least: int) -> _Kind:
    return _Kind(f"a whole number of at least {least}", lambda v: _is_int(v) and v >= least, reads=int)


def _number(low: float, high: float, name: str) -> _Kind:
    def holds(value: Any) -> bool:
        return (_is_int(value) or isinstance(value, float)) and low <= value <= high

    return _Kind(name, holds, float, float)


_STRING = _Kind("a string", lambda v: isinstance(v, str))
_PATH = _Kind("a string with a path", lambda v: isinstance(v, str) and v != "", lambda v: Path(v).expanduser())
_SEED = _Kind("a whole number of at most 18 digits", lambda v: _is_int(v) and abs(v) < 10**18, reads=int)
_SHARE = _number(0.0, 1.0, "a number from 0 to 1")
_KEYMAP = _Kind(
    "a table of binding ids and keys, each a string",
    lambda v: isinstance(v, dict) and all(isinstance(key, str) for key in v.values()),
)
_PRESETS = _Kind(
    "tables [presets.NAME]",
    lambda v: isinstance(v, dict) and all(name and isinstance(preset, dict) for name, preset in v.items()),
)

_KINDS: dict[str, _Kind] = {
    "model": _STRING,
    "db": _PATH,
    "theme": _STRING,
    "system_prompt": _STRING,
    "max_tokens": _at_least(1),
    "temperature": _number(0.0, 100.0, "a number of 0 or more"),
    "top_p": _Kind("a number above 0 and up to 1", lambda v: _SHARE.holds(v) and v > 0, float, float),
    "top_k": _at_least(0),
    "min_p": _SHARE,
    "repetition_penalty": _number(0.001, 10.0, "a number from 0.001 to 10"),
    "seed": _SEED,
    "device": _STRING,
    "dtype": _Kind("float32, bfloat16 or float16", lambda v: v in ("float32", "bfloat16", "float16")),
    "kv_tokens": _at_least(1),
    "host_tokens": _at_least(0),
    "kv_disk_mb": _at_least(0),
    "max_batch": _at_least(1),
    "num_threads": _at_least(1),
    "deterministic": _Kind("true or false", lambda v: isinstance(v, bool)),
    "keymap": _KEYMAP,
    "presets": _PRESETS,
}

PRESET_KEYS = ("system_prompt", *SAMPLING_KEYS, "max_tokens", "seed")
"""The keys that a preset and a conversation can set."""


def is_valid(key: str, value: Any) -> bool:
    """Return whether the value is valid for the key."""
    return key in _KINDS and _KINDS[key].holds(value)


def expected(key: str) -> str:
    """Return the description of the key's valid values."""
    return _KINDS[key].name


def read_value(key: str, text: str) -> Any:
    """Convert the text of a user to the value of a key of `PRESET_KEYS`. Raises ConfigError with the expected form."""
    kind = _KINDS[key]
    try:
        value = kind.reads(text.strip())
    except ValueError:
        value = None
    if value is None or not kind.holds(value):
        raise ConfigError(f"{key} must be {kind.name}, not {_show(text.strip())}")
    return kind.convert(value)


def config_path() -> Path:
    """Return the path of the configuration file, which may not exist."""
    return config_dir() / "config.toml"


def load_config(path: Path | None = None) -> Config:
    """Read `path`, or the file of `config_path` for None. Without a file, all values are defaults.

    Raises ConfigError, with the line, for an unknown key or a wrong value, and for a file that is unreadable or not
    TOML.
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
        raise ConfigError(f"{path} is not TOML: {error}", 'Strings need quotes: theme = "dark"') from error
    return Config.of({key: _value(path, text, key, value) for key, value in table.items()})


def _value(path: Path, text: str, key: str, value: Any) -> Any:
    value = _checked(f"{path}, line {line_of(text, key)}", key, value, _KINDS)
    if key != "presets":
        return value
    return {name: _preset(path, text, name, preset) for name, preset in value.items()}


def _preset(path: Path, text: str, name: str, preset: Mapping[str, Any]) -> Mapping[str, Any]:
    first = line_of(text, f"presets.{name}")
    return {
        key: _checked(f"{path}, line {line_of(text, key, first)}", key, value, PRESET_KEYS)
        for key, value in preset.items()
    }


def _checked(where: str, key: str, value: Any, known: Collection[str]) -> Any:
    if key not in known:
        raise ConfigError(f"{where}: unknown key {key!r}", nearest(key, known, "Known keys"))
    kind = _KINDS[key]
    if not kind.holds(value):
        raise ConfigError(f"{where}: {key} must be {kind.name}, not {_show(value)}")
    return kind.convert(value)


def nearest(word: str, known: Collection[str], otherwise: str) -> str:
    """Return a hint with the nearest known word, or with all of them."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else f"{otherwise}: {', '.join(known)}"


def _show(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def line_of(text: str, key: str, first: int = 1) -> int:
    """Return the line of a key or table, from 1, at `first` or below.

    tomllib gives no lines, so the text is searched.
    """
    parts = r"\s*\.\s*".join(rf"""["']?{re.escape(part)}["']?""" for part in key.split("."))
    pattern = re.compile(rf"^\s*\[*\s*{parts}\s*[\]=.]")
    lines = enumerate(text.splitlines(), 1)
    return next((i for i, line in lines if i >= first and pattern.match(line)), first)


def to_toml(config: Config) -> str:
    """Return the effective configuration as TOML that `load_config` reads. A value of None is a comment."""
    lines, tables = [], []
    for key, value in config.by_key().items():
        if key == "presets":
            for name, preset in value.items():
                tables += ["", *preset_lines(name, preset)]
        elif isinstance(value, Mapping):
            entries = [f"{_show(name)} = {_show(entry)}" for name, entry in value.items()]
            tables += ["", f"[{key}]", *entries]
        elif value is None:
            lines.append(f"# {key} is chosen by treechat")
        else:
            lines.append(f"{key} = {_show(str(value) if isinstance(value, Path) else value)}")
    return "\n".join(lines + tables) + "\n"


def preset_lines(name: str, values: Mapping[str, Any]) -> list[str]:
    """Return a preset as lines of TOML."""
    return [f"[presets.{_show(name)}]", *(f"{key} = {_show(value)}" for key, value in values.items())]


def add_preset(name: str, values: Mapping[str, Any], path: Path | None = None) -> None:
    """Append a preset to the file, which is created if needed; the rest of the file stays as it is.

    Raises ConfigError if the name is in use, or if the file cannot be read as a configuration or not be written.
    """
    path = config_path() if path is None else path
    if name in load_config(path).presets:
        raise ConfigError(
            f"A preset named {name!r} exists already", f"Choose another name, or change the preset in {path}."
        )
    try:
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".part")
        gap = "" if not before else "\n" if before.endswith("\n") else "\n\n"
        partial.write_text(before + gap + "\n".join(preset_lines(name, values)) + "\n", encoding="utf-8")
        # Resolve a link, for example one of a dotfile manager, and replace its target.
        partial.replace(path.resolve())
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}", "Set TREECHAT_CONFIG_DIR to another directory."
        ) from error
