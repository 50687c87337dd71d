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
from treechat.formats.reading.lines import decode, read_lines, without_surrogates

MAX_RECORD_BYTES = 64 * 1024 * 1024
"""One conversation's JSON, or one line's. Its values take up to ten times as much memory while they are converted."""

MAX_RECORD_VALUES = 5_000_000
"""Values in one record, so that 64 MB of `[],[],` do not become gigabytes."""

PEEK_BYTES = 1 << 20
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{}]', re.DOTALL)
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


class Record(NamedTuple):
    """where: file and place, as the report's sentences begin. value: an object or array."""

    place: str
    value: Any


def read_records(file: Input, report: ImportReport) -> Generator[Record, None, None]:
    """The records of a file, with what is wrong in `report`."""
    with file.open() as stream:
        if _holds_lines(file):
            for line in read_lines(stream, MAX_RECORD_BYTES):
                place = f"{file.name}, line {line.number}"
                raw = None if line.text is None else line.text.encode("utf-8")
                if (record := parse_record(raw, place, report, line.num_replaced)) is not None:
                    yield record
        else:
            for number, raw in enumerate(split(stream), 1):
                if (record := parse_record(raw, f"{file.name}, item {number}", report)) is not None:
                    yield record


def _holds_lines(file: Input) -> bool:
    """Whether each line is a record: the first one is an object, and complete."""
    with file.peek() as stream:
        head = stream.read(PEEK_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    line, end, _ = head.partition(b"\n")
    return bool(end) and line.startswith(b"{") and line.rstrip().endswith(b"}")


def split(stream: BinaryIO) -> Iterator[bytes | None]:
    """The objects and arrays of a JSON array, or of values one after another, as bytes; None for one too large.

    What is between them is not looked at. The last one may be cut off, which its parser finds.
    """
    buffer, start, position = b"", -1, 0
    depth = base_depth = 0
    first, skipping = True, False
    while chunk := stream.read(max(PEEK_BYTES, min(len(buffer), MAX_RECORD_BYTES))):
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
                    base_depth = 1
                elif depth == base_depth:
                    start = match.start()
                first = False
                depth += 1
            elif token in (b"]", b"}") and depth:
                depth -= 1
                if depth == base_depth and (start >= 0 or skipping):
                    length = match.end() - start
                    yield None if skipping or length > MAX_RECORD_BYTES else buffer[start : match.end()]
                    start, skipping = -1, False
                base_depth = min(base_depth, depth)
        keep_from = min(start, resume) if start >= 0 else resume
        if len(buffer) - keep_from > MAX_RECORD_BYTES:
            skipping, start, keep_from = skipping or depth > base_depth, -1, resume
            if len(buffer) - resume > MAX_RECORD_BYTES:
                # A string without end: only that it is open is remembered, and whether its next character is escaped.
                num_backslashes = len(buffer) - len(buffer.rstrip(b"\\"))
                buffer, keep_from, resume = b'"' + b"\\" * (num_backslashes % 2), 0, 0
        buffer, position = buffer[keep_from:], resume - keep_from
        start = start - keep_from if start >= 0 else -1
    if start >= 0 or skipping:
        yield None if skipping else buffer[start:]
    elif depth:
        # The array itself was not closed: something may be missing.
        yield b"["


def parse_record(raw: bytes | None, place: str, report: ImportReport, num_replaced: int = 0) -> Record | None:
    """The JSON of one record; None, with the reason in `report`, where it is too large or broken.

    raw: None for what was too large to be held. num_replaced: invalid sequences that were replaced in it already.
    """
    if raw is None or len(raw) > MAX_RECORD_BYTES:
        report.fail(place, f"it is larger than {MAX_RECORD_BYTES // 2**20} MB")
        return None
    if sum(map(raw.count, (b",", b"[", b"{"))) > MAX_RECORD_VALUES:
        report.fail(place, f"it has more than {MAX_RECORD_VALUES:,} values")
        return None
    text, more_replaced = decode(raw)
    try:
        value = parse_json(text)
    except (ValueError, RecursionError) as error:
        why = f" at character {error.pos:,}" if isinstance(error, json.JSONDecodeError) else ""
        report.fail(place, f"not JSON, or cut off{why}")
        return None
    num_replaced += more_replaced
    if _SURROGATE_ESCAPE.search(raw):
        value, num_surrogates = without_surrogates(value)
        num_replaced += num_surrogates
    if num_replaced:
        report.drop(place, f"{num_replaced} invalid characters were replaced")
    return Record(place, value)


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


# Not strict: some programs write line ends and other control characters into strings as they are.
_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=lambda _: None, strict=False)


def parse_json(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except RecursionError:
        return deep_json.parse(text, _DECODER)
