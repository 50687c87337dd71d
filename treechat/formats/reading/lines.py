"""Read lines of an untrusted file one at a time. Limits their size; replaces and counts bad UTF-8 and surrogates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

MAX_LINE_BYTES = 64 * 1024 * 1024
"""Limit on a line; a longer one is skipped. No message is that long, and a file without line ends must not fill
memory."""

_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its line end.

    number: counts from 1.
    text: None if the line is too long.
    num_replaced: invalid sequences that were replaced.
    """

    number: int
    text: str | None
    num_replaced: int = 0


def read_lines(stream: BinaryIO, max_bytes: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """Yield the lines of `stream` except blank ones. A line longer than `max_bytes` is skipped, not held in memory."""
    number = 0
    while raw := stream.readline(max_bytes + 1):
        number += 1
        if len(raw) > max_bytes and not raw.endswith(b"\n"):
            _skip_to_end(stream)
            yield Line(number, None)
            continue
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        text, num_replaced = decode(raw)
        if text.strip():
            yield Line(number, text.rstrip("\r\n"), num_replaced)


def _skip_to_end(stream: BinaryIO) -> None:
    while (rest := stream.readline(1 << 20)) and not rest.endswith(b"\n"):
        pass


def decode(raw: bytes) -> tuple[str, int]:
    """Decode UTF-8. Return the text with U+FFFD for each invalid sequence, and the number of replacements."""
    try:
        return raw.decode("utf-8"), 0
    except UnicodeDecodeError:
        text = raw.decode("utf-8", errors="replace")
        # Do not count a U+FFFD that is validly encoded in the file.
        return text, text.count("\ufffd") - raw.count(b"\xef\xbf\xbd")


def without_surrogates(value: Any) -> tuple[Any, int]:
    """Replace lone surrogates in the strings of a JSON value by U+FFFD, in place.

    Return the value and the number of replacements. Iterative.
    """
    holder, num_replaced = [value], 0
    stack: list[Any] = [holder]
    while stack:
        current = stack.pop()
        for key, item in list(current.items() if isinstance(current, dict) else enumerate(current)):
            if isinstance(item, str):
                current[key], count = _SURROGATES.subn("\ufffd", item)
                num_replaced += count
            elif isinstance(item, dict | list):
                stack.append(item)
            if isinstance(key, str) and _SURROGATES.search(key):
                # The key moves to the end of its object, where order has no meaning.
                clean_key, count = _SURROGATES.subn("\ufffd", key)
                current[clean_key] = current.pop(key)
                num_replaced += count
    return holder[0], num_replaced
