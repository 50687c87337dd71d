"""Read fields of foreign JSON leniently: a missing value or one of a wrong type counts as empty."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

END_OF_TIME = 32_503_680_000.0
"""The year 3000, seconds since the epoch. Later times, and times before 1970, are taken as unknown."""

MAX_META_DEPTH = 24
"""Depth at which JSON in a node's meta is cut, because later readers may recurse."""

_LARGEST_SECONDS = 1e11
_FRACTION = re.compile(r"(\.\d{6})\d+")


def text_of(value: Any) -> str:
    """Return the value if it is a string, else an empty string."""
    return value if isinstance(value, str) else ""


def dict_of(value: Any) -> dict[str, Any]:
    """Return the value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def list_of(value: Any) -> list[Any]:
    """Return the value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def json_in(value: Any) -> Any:
    """Return the JSON value in a string, or the string itself if it is not JSON; None for other types."""
    if not isinstance(value, str):
        return None
    try:
        return json.loads(value, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return value


def id_of(value: Any) -> str | None:
    """Return a non-empty string or an integer as an id; None for anything else."""
    if isinstance(value, str):
        return value or None
    return str(value) if type(value) is int and abs(value) < 2**63 else None


def first_text(record: Mapping[str, Any], *keys: str) -> str:
    """Return the first of these fields that is a non-empty string, else an empty string."""
    for key in keys:
        if isinstance(value := record.get(key), str) and value:
            return value
    return ""


def seconds(value: Any) -> float | None:
    """Return a time in seconds since the epoch, None if it is invalid.

    value: seconds, milliseconds, an ISO 8601 string (UTC if it has no zone), or a number in a string.
    """
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
    """Return the value as it is stored in a node's meta: JSON of at most `depth` levels.

    NaN and infinity become None. Bytes, which SQLite allows in any column, become text.
    """
    if isinstance(value, dict):
        return {str(key): meta_value(item, depth - 1) for key, item in value.items()} if depth else "…"
    if isinstance(value, list):
        return [meta_value(item, depth - 1) for item in value] if depth else "…"
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value
