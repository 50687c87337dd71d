"""Parse JSON of any depth: an iterative and slower parser for values that exceed the standard parser's recursion."""

from __future__ import annotations

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

_BLANK = re.compile(r"[ \t\n\r]*")
_ATOM = re.compile(r"-?\d[\d.eE+-]*|[a-zA-Z-]+")


def parse(text: str, decoder: json.JSONDecoder) -> Any:
    """Return the value of the whole text; `decoder` parses numbers and names. Raises ValueError."""
    top: list[Any] = []
    containers: list[Any] = [top]
    keys: list[str] = []
    position, expected = _skip(text, 0), "value"
    while position < len(text):
        char, container = text[position], containers[-1]
        is_closing = char in "]}" and len(containers) > 1 and (char == "]") == isinstance(container, list)
        if is_closing and expected in ("value or end", "key or end", "comma"):
            containers.pop()
            position, expected = position + 1, "comma"
        elif expected in ("key", "key or end"):
            if char != '"':
                raise ValueError("a key is no string")
            key, position = scanstring(text, position + 1, decoder.strict)
            position = _skip(text, position)
            if text[position : position + 1] != ":":
                raise ValueError("a key has no value")
            keys.append(key)
            position, expected = position + 1, "value"
        elif expected.startswith("value"):
            value, position, is_container = _value(text, position, decoder)
            _put(container, keys, value)
            if is_container:
                containers.append(value)
                expected = "value or end" if isinstance(value, list) else "key or end"
            else:
                expected = "comma"
        elif char == "," and len(containers) > 1:
            position, expected = position + 1, "value" if isinstance(container, list) else "key"
        else:
            raise ValueError(f"{char!r} is out of place")
        position = _skip(text, position)
    if len(containers) > 1 or len(top) != 1:
        raise ValueError("the text ends too early")
    return top[0]


def _skip(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    assert match is not None, "a pattern of blanks matches everywhere"
    return match.end()


def _value(text: str, position: int, decoder: json.JSONDecoder) -> tuple[Any, int, bool]:
    """Return the value at `position`, its end, and whether it is a container whose items follow."""
    char = text[position]
    if char == "{":
        return {}, position + 1, True
    if char == "[":
        return [], position + 1, True
    if char == '"':
        value, end = scanstring(text, position + 1, decoder.strict)
        return value, end, False
    atom = _ATOM.match(text, position)
    if atom is None:
        raise ValueError(f"{char!r} is out of place")
    return decoder.decode(atom.group()), atom.end(), False


def _put(container: Any, keys: list[str], value: Any) -> None:
    if isinstance(container, list):
        container.append(value)
    else:
        container[keys.pop()] = value
