"""Read the records of an untrusted JSON file one at a time: elements of an array, lines, or consecutive values.

Only the current record is in memory. A record that is too large, broken or cut off is reported, and the next one is
read.
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
"""Limit on one record's JSON. Its values take up to ten times as much memory during conversion."""

MAX_RECORD_VALUES = 5_000_000
"""Limit on the values in one record: 64 MB of `[],[],` would take gigabytes as Python objects."""

PEEK_BYTES = 1 << 20
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{}]', re.DOTALL)
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


class Record(NamedTuple):
    """One record.

    place: file and place, the beginning of the report's sentences.
    value: an object or array.
    """

    place: str
    value: Any


def read_records(file: Input, report: ImportReport) -> Generator[Record, None, None]:
    """Yield the records of a file. Faults go to `report`. Raises OSError and FormatError."""
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
    """Return whether each line is a record: the first line is a complete object."""
    with file.peek() as stream:
        head = stream.read(PEEK_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    line, end, _ = head.partition(b"\n")
    return bool(end) and line.startswith(b"{") and line.rstrip().endswith(b"}")


def split(stream: BinaryIO) -> Iterator[bytes | None]:
    """Yield the objects and arrays in a JSON array or in a sequence of values, as bytes; None for one too large.

    Text between them is ignored. The last one may be cut off; the parser detects that.
    """
    buffer, start, position = b"", -1, 0
    depth = base_depth = 0
    first, is_skipping = True, False
    while chunk := stream.read(max(PEEK_BYTES, min(len(buffer), MAX_RECORD_BYTES))):
        buffer += chunk
        resume_at = len(buffer)
        for match in _TOKEN.finditer(buffer, position):
            token = match.group()
            if token == b'"':
                # The string continues in the part that is not read yet.
                resume_at = match.start()
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
                if depth == base_depth and (start >= 0 or is_skipping):
                    length = match.end() - start
                    yield None if is_skipping or length > MAX_RECORD_BYTES else buffer[start : match.end()]
                    start, is_skipping = -1, False
                base_depth = min(base_depth, depth)
        keep_from = min(start, resume_at) if start >= 0 else resume_at
        if len(buffer) - keep_from > MAX_RECORD_BYTES:
            is_skipping, start, keep_from = is_skipping or depth > base_depth, -1, resume_at
            if len(buffer) - resume_at > MAX_RECORD_BYTES:
                # A string without end: keep only the open quote and whether the next character is escaped.
                num_backslashes = len(buffer) - len(buffer.rstrip(b"\\"))
                buffer, keep_from, resume_at = b'"' + b"\\" * (num_backslashes % 2), 0, 0
        buffer, position = buffer[keep_from:], resume_at - keep_from
        start = start - keep_from if start >= 0 else -1
    if start >= 0 or is_skipping:
        yield None if is_skipping else buffer[start:]
    elif depth:
        # The array is not closed: records may be missing.
        yield b"["


def parse_record(raw: bytes | None, place: str, report: ImportReport, num_replaced: int = 0) -> Record | None:
    """Parse one record; return None and report the reason if it is too large or broken.

    raw: the JSON, None if it was too large to hold.
    place: file and place, for the report.
    report: gets the faults.
    num_replaced: invalid sequences that were already replaced in it.
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


# Not strict: some programs write unescaped line ends and control characters into strings.
_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=lambda _: None, strict=False)


def parse_json(text: str) -> Any:
    """Parse JSON of any depth. Raises ValueError."""
    try:
        return _DECODER.decode(text)
    except RecursionError:
        return deep_json.parse(text, _DECODER)
