"""JSON in the columns of llm's database."""

from __future__ import annotations

import json
from typing import Any

from treechat.formats.loose import dict_of


def json_in(value: Any) -> Any:
    """The JSON value in a column, the column itself where it is none."""
    if not isinstance(value, str):
        return None
    try:
        return json.loads(value, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return value


def options_in(value: Any) -> dict[str, Any]:
    """Sampling options: short plain values only."""
    return {
        key: item
        for key, item in dict_of(json_in(value)).items()
        if type(item) in (int, bool, str) or (type(item) is float and abs(item) < 1e300)
    }
