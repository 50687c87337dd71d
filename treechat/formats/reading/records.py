"""The records of an untrusted JSON file, one at a time: the elements of an array, lines, or values one after another.

Nothing but the record at hand is in memory. A record that is too large, broken or cut off is reported, and reading
goes on with the next.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Generator, Iterator
from typing import Any, BinaryIO, NamedTuple

from treechat.formats.document import ImportReport
from treechat.formats.reading import deep_json
from treechat.formats.reading.inputs import Input
from treechat.formats.reading.lines import decode, read_lines

MAX_RECORD_BYTES = 64 * 1024 * 1024
"""One conversation's JSON, or one line's. Its values take up to ten times as much memory while they are converted."""

MAX_RECORD_VALUES = 5_000_000
"""Values in one record, so that 64 MB of `[],[],` do not become gigabytes."""

_PEEK_BYTES = 1 << 20
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{}]', re.DOTALL)
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATES = re.compile("[\ud800-\udfff]")


class Record(NamedTuple):
    """where: file and place, as the report's sentences begin. value: an object or array."""

    where: str
    value: Any


def read_records(file: Input, report: ImportReport) -> Generator[Record, None, None]:
    """The records of a file, with what is wrong in `report`."""
    with file.open() as stream:
        if _holds_lines(file):
            for line in read_lines(stream, MAX_RECORD_BYTES):
                where = f"{file.name}, line {line.number}"
                raw = None if line.text is None else line.text.encode("utf-8")
                if (record := parse_record(raw, where, report, line.num_replaced)) is not None:
                    yield record
        else:
            for number, raw in enumerate(split(stream), 1):
                if (record := parse_record(raw, f"{file.name}, item {number}", report)) is not None:
                    yield record


def _holds_lines(file: Input) -> bool:
    """Whether each line is a record: the first one is an object, and complete."""
    with file.peek() as stream:
        head = stream.read(_PEEK_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    line, end, _ = head.partition(b"\n")
    return bool(end) and line.startswith(b"{") and line.rstrip().endswith(b"}")


def split(stream: BinaryIO) -> Iterator[bytes | None]:
    """The objects and arrays of a JSON array, or of values one after another, as bytes; None for one too large.

    What is between them is not looked at. The last one may be cut off, which its parser finds.
    """
    buffer, start, position = b"", -1, 0
    depth = base = 0
    first, skipping = True, False
    while chunk := stream.read(max(_PEEK_BYTES, min(len(buffer), MAX_RECORD_BYTES))):
        buffer += chunk
        resume = len(buffer)
        for match in _TOKEN.finditer(buffer, position):
            token = match.group()
            if token == b'"':
                # The string goes on in what was not read yet.
                resume = match.start()
                break
            if token in (b"[", b"{"):
                if first and token == b"[":
                    base = 1
                elif depth == base:
                    start = match.start()
                first = False
                depth += 1
            elif token in (b"]", b"}") and depth:
                depth -= 1
                if depth == base and (start >= 0 or skipping):
                    whole = match.end() - start
                    yield None if skipping or whole > MAX_RECORD_BYTES else buffer[start : match.end()]
                    start, skipping = -1, False
                base = min(base, depth)
        keep = min(start, resume) if start >= 0 else resume
        if len(buffer) - keep > MAX_RECORD_BYTES:
            skipping, start, keep = skipping or depth > base, -1, resume
            if len(buffer) - resume > MAX_RECORD_BYTES:
                # A string without end: only that it is open is remembered, and whether its next character is escaped.
                num_backslashes = len(buffer) - len(buffer.rstrip(b"\\"))
                buffer, keep, resume = b'"' + b"\\" * (num_backslashes % 2), 0, 0
        buffer, position = buffer[keep:], resume - keep
        start = start - keep if start >= 0 else -1
    if start >= 0 or skipping:
        yield None if skipping else buffer[start:]
    elif depth:
        # The array itself was not closed: something may be missing.
        yield b"["


def parse_record(raw: bytes | None, where: str, report: ImportReport, num_replaced: int = 0) -> Record | None:
    """The JSON of one record; None, with the reason in `report`, where it is too large or broken.

    raw: None for what was too large to be held. num_replaced: invalid sequences that were replaced in it already.
    """
    if raw is None or len(raw) > MAX_RECORD_BYTES:
        report.fail(where, f"it is larger than {MAX_RECORD_BYTES // 2**20} MB")
        return None
    if sum(map(raw.count, (b",", b"[", b"{"))) > MAX_RECORD_VALUES:
        report.fail(where, f"it has more than {MAX_RECORD_VALUES:,} values")
        return None
    text, more_replaced = decode(raw)
    try:
        value = _parsed(text)
    except (ValueError, RecursionError) as error:
        why = f" at character {error.pos:,}" if isinstance(error, json.JSONDecodeError) else ""
        report.fail(where, f"not JSON, or cut off{why}")
        return None
    num_replaced += more_replaced
    if _SURROGATE_ESCAPE.search(raw):
        value, num_surrogates = without_surrogates(value)
        num_replaced += num_surrogates
    if num_replaced:
        report.drop(where, f"{num_replaced} invalid characters were replaced")
    return Record(where, value)


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


# Not strict: some programs write line ends and other control characters into strings as they are.
_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=lambda _: None, strict=False)


def _parsed(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except RecursionError:
        return deep_json.parse(text, _DECODER)


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
                # A key behind the others is as good: order means nothing in an object.
                current[_SURROGATES.sub("\ufffd", key)] = current.pop(key)
                num_replaced += 1
    return holder[0], num_replaced
