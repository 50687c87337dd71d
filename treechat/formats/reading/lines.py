"""Lines of an untrusted file, one at a time: bounded in size, bad UTF-8 and surrogates replaced and counted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

MAX_LINE_BYTES = 64 * 1024 * 1024
"""A longer line is left out: no message is that long, and a file without line ends must not fill the memory."""

_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end. number counts from 1; text is None where it was too long; num_replaced: bad sequences."""

    number: int
    text: str | None
    num_replaced: int = 0


def read_lines(stream: BinaryIO, max_bytes: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """The lines of `stream`, blank ones left out. A line of more than `max_bytes` is skipped without being held."""
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
    """`raw` as text, each invalid sequence replaced by U+FFFD, and how many there were."""
    try:
        return raw.decode("utf-8"), 0
    except UnicodeDecodeError:
        text = raw.decode("utf-8", errors="replace")
        # A U+FFFD that was validly encoded was there before.
        return text, text.count("\ufffd") - raw.count(b"\xef\xbf\xbd")


def without_surrogates(value: Any) -> tuple[Any, int]:
    """The JSON value, changed in place, with U+FFFD for lone surrogates in its strings, and how many. Iterative."""
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
