"""Read fields of an untrusted JSON object and check their types. Raises FieldError with a sentence about the fault."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T", bound=str)


class FieldError(ValueError):
    """A field is missing or has a wrong type."""


def parse_finite(text: str) -> float:
    """Parse a JSON number with a point or exponent. Refuses NaN and 1e999, which only Python reads."""
    value = float(text)
    if not math.isfinite(value):
        raise FieldError(f"{text} is not a number")
    return value


def string(record: dict[str, Any], key: str, default: str | None = None) -> str:
    """Return the string under `key`, `default` if it is absent or null. Raises FieldError if `default` is None then."""
    value = record.get(key)
    value = default if value is None else value
    if not isinstance(value, str):
        raise FieldError(f"{key} is not a string")
    return value


def strings(record: dict[str, Any], key: str) -> tuple[str, ...]:
    """Return the list of strings under `key`, empty if it is absent."""
    value = record.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise FieldError(f"{key} is not a list of strings")
    return tuple(value)


def choice(record: dict[str, Any], key: str, choices: Sequence[T], default: T | None = None) -> T:
    """Return the value under `key`, which must be one of `choices`."""
    value = record.get(key, default)
    for option in choices:
        if value == option:
            return option
    raise FieldError(f"{key} is none of {', '.join(choices)}")


def number(record: dict[str, Any], key: str) -> float | None:
    """Return the finite number under `key` as a float, None if it is absent or null."""
    value = record.get(key)
    if value is None:
        return None
    if not _is_number(value):
        raise FieldError(f"{key} is not a number")
    return float(value)


def _is_number(value: Any) -> bool:
    # A larger integer would not fit into a float.
    return type(value) in (int, float) and abs(value) < 1e300


def boolean(record: dict[str, Any], key: str) -> bool:
    """Return the boolean under `key`, false if it is absent."""
    value = record.get(key, False)
    if not isinstance(value, bool):
        raise FieldError(f"{key} is neither true nor false")
    return value


def mapping(record: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the object under `key`, empty if it is absent or null."""
    value = record.get(key)
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise FieldError(f"{key} is not an object")
    return value


def token_ids(record: dict[str, Any], key: str) -> tuple[int, ...]:
    """Return the list of token ids under `key`; each must fit into 31 bits."""
    value = record.get(key)
    if not isinstance(value, list) or not all(type(item) is int and 0 <= item < 2**31 for item in value):
        raise FieldError(f"{key} is not a list of token ids")
    return tuple(value)


def logprobs(record: dict[str, Any], key: str) -> tuple[float, ...] | None:
    """Return the natural-log probabilities under `key`, None if absent. A null item means minus infinity."""
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(item is None or _is_number(item) for item in value):
        raise FieldError(f"{key} is not a list of numbers")
    return tuple(-math.inf if item is None else float(item) for item in value)
