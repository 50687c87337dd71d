"""Fields of foreign JSON, taken as far as they make sense: what is missing or of another type is empty."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

END_OF_TIME = 32_503_680_000.0
"""The year 3000, seconds since the epoch. What lies behind it, or before 1970, is no time that a message has."""

MAX_META_DEPTH = 24
"""Deeper JSON is cut where it is kept beside a text: all that reads it later may recurse."""

_LARGEST_SECONDS = 1e11
_FRACTION = re.compile(r"(\.\d{6})\d+")


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""


def dict_of(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def list_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def json_in(value: Any) -> Any:
    """The JSON value in a string, the string itself where it is none; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        return json.loads(value, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return value


def id_of(value: Any) -> str | None:
    """A string or a whole number as an id; None for anything else, and for what is empty."""
    if isinstance(value, str):
        return value or None
    return str(value) if type(value) is int and abs(value) < 2**63 else None


def first_text(record: Mapping[str, Any], *keys: str) -> str:
    """The first of these fields that is a string and not empty."""
    for key in keys:
        if isinstance(value := record.get(key), str) and value:
            return value
    return ""


def seconds(value: Any) -> float | None:
    """A time as seconds since the epoch, from seconds, milliseconds, ISO 8601, or a number in a string."""
    if isinstance(value, str):
        value = _from_string(value.strip())
    if type(value) not in (int, float) or not abs(value) < 1e300:
        return None
    value = float(value)
    if value > _LARGEST_SECONDS:
        value /= 1000
    return value if 0 < value < END_OF_TIME else None


def _from_string(text: str) -> float | None:
    if len(text) > 64:
        return None
    try:
        return float(text)
    except ValueError:
        pass
    try:
        parsed = datetime.fromisoformat(_FRACTION.sub(r"\1", text))
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def meta_value(value: Any, depth: int = MAX_META_DEPTH) -> Any:
    """The value as it may be kept in a node's meta: JSON of at most `depth` levels, no number that it cannot say, and
    with text for the bytes that a database may have in any column.
    """
    if isinstance(value, dict):
        return {str(key): meta_value(item, depth - 1) for key, item in value.items()} if depth else "…"
    if isinstance(value, list):
        return [meta_value(item, depth - 1) for item in value] if depth else "…"
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value
