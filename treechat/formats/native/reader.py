"""Read treechat's own format line by line. The file is not trusted; everything that is left out is reported."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from treechat.errors import FormatError
from treechat.formats.document import Document, ImportReport, Message, Source
from treechat.formats.native.writer import FORMAT, VERSION
from treechat.formats.reading.lines import Line, read_lines, without_surrogates
from treechat.formats.reading.strict_fields import (
    FieldError,
    boolean,
    choice,
    logprobs,
    mapping,
    number,
    parse_finite,
    string,
    strings,
    token_ids,
)
from treechat.formats.trees.draft import MAX_NODES
from treechat.formats.trees.repair import repair_messages
from treechat.tree import ROLES, STATUSES, Conversation, Node, Span, Turn, preview_of

_DECODER = json.JSONDecoder(parse_float=parse_finite, parse_constant=parse_finite)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_ID = re.compile(r"[\w.:-]{1,128}")


def read_native(stream: BinaryIO, name: str, report: ImportReport) -> Iterator[Document]:
    """Yield the conversations of a file. A faulty line is reported as failed, and the next one is read.

    Raises FormatError if the first line is not a treechat header.

    stream: the file.
    name: its name in the report.
    report: gets the faults.
    """
    header: dict[str, Any] | None = None
    messages: list[Message] = []
    lines = read_lines(stream)
    for line in lines:
        record = _record(line, name, report)
        if record is not None and record.get("format") == FORMAT:
            if header is not None:
                yield _document(header, messages, name, report)
            _check_version(record, name)
            header, messages = record, []
        elif header is None:
            raise FormatError(f"{name} is not a treechat export: its first line is not a header")
        elif record is not None and len(messages) < MAX_NODES:
            _add_message(record, f"{name}, line {line.number}", messages, report)
        elif record is not None:
            report.fail(f"{name}, line {line.number}", f"more than {MAX_NODES:,} nodes in one conversation")
    if header is None:
        raise FormatError(f"{name} is empty")
    yield _document(header, messages, name, report)


def _record(line: Line, name: str, report: ImportReport) -> dict[str, Any] | None:
    place = f"{name}, line {line.number}"
    if line.text is None:
        report.fail(place, "the line is too long")
        return None
    try:
        value, num_surrogates = _DECODER.decode(line.text), 0
        # Valid UTF-8 has no surrogates; only an escape sequence can produce one.
        if _SURROGATE.search(line.text):
            value, num_surrogates = without_surrogates(value)
    except (ValueError, RecursionError) as error:
        report.fail(place, f"not JSON ({type(error).__name__})")
        return None
    if not isinstance(value, dict):
        report.fail(place, "not a JSON object")
        return None
    if num_replaced := line.num_replaced + num_surrogates:
        report.drop(place, f"{num_replaced} invalid characters were replaced")
    return value


def _check_version(record: dict[str, Any], name: str) -> None:
    version = record.get("version")
    if version != VERSION:
        raise FormatError(f"{name} has version {version} of the format", f"This treechat reads version {VERSION}")


def _add_message(record: dict[str, Any], place: str, messages: list[Message], report: ImportReport) -> None:
    try:
        messages.append(_message(record))
    except FieldError as error:
        report.fail(place, str(error))


def _message(record: dict[str, Any]) -> Message:
    labels = strings(record, "labels")
    text = string(record, "text")
    status = choice(record, "status", STATUSES, "complete")
    node = Node(
        id=_node_id(record, "id"),
        parent_id=None if record.get("parent") is None else _node_id(record, "parent"),
        role=choice(record, "role", ROLES),
        status="interrupted" if status == "streaming" else status,
        created_at=number(record, "created") or 0.0,
        preview=preview_of(text),
        label=labels[0] if labels else None,
        bookmarked=boolean(record, "bookmarked"),
    )
    turn = _turn(mapping(record, "turn")) if record.get("turn") is not None else None
    return Message(node, text, turn, _spans(record), labels, mapping(record, "meta"))


def _node_id(record: dict[str, Any], key: str) -> str:
    value = string(record, key)
    if not _ID.fullmatch(value):
        raise FieldError(f"{key} is not a node id")
    return value


def _turn(record: dict[str, Any]) -> Turn:
    return Turn(
        model=string(record, "model"),
        sampling=mapping(record, "sampling"),
        seed=_integer(record, "seed", end=2**64),
        finish_reason=None if record.get("finish_reason") is None else string(record, "finish_reason"),
        prompt_tokens=_integer(record, "prompt_tokens"),
        cached_tokens=_integer(record, "cached_tokens"),
        restored_tokens=_integer(record, "restored_tokens"),
        computed_tokens=_integer(record, "computed_tokens"),
        completion_tokens=_integer(record, "completion_tokens"),
        queue_s=number(record, "queue_s"),
        ttft_s=number(record, "ttft_s"),
        total_s=number(record, "total_s"),
    )


def _integer(record: dict[str, Any], key: str, end: int = 2**63) -> int | None:
    value = record.get(key)
    # SQLite's integers have 64 bits, including the sign.
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < end):
        return value
    raise FieldError(f"{key} is not a whole number")


def _spans(record: dict[str, Any]) -> tuple[Span, ...]:
    values = record.get("spans", [])
    if not isinstance(values, list) or not all(isinstance(span, dict) for span in values):
        raise FieldError("spans is not a list of objects")
    spans = [Span(string(span, "tokenizer"), token_ids(span, "ids"), logprobs(span, "logprobs")) for span in values]
    for span in spans:
        if span.logprobs is not None and len(span.logprobs) != len(span.ids):
            raise FieldError(f"a span has {len(span.ids)} ids and {len(span.logprobs)} logprobs")
    return tuple(spans)


def _document(header: dict[str, Any], messages: list[Message], name: str, report: ImportReport) -> Document:
    try:
        conversation_id, title = _node_id(header, "id"), string(header, "title", "")
        created_at, meta = number(header, "created") or 0.0, mapping(header, "meta")
        updated_at, source = number(header, "updated") or created_at, _source(mapping(header, "source"))
    except FieldError as error:
        raise FormatError(f"the header of {name} is invalid: {error}") from error
    repaired = repair_messages(messages, report, name)
    current_id = header.get("current")
    if current_id is not None and not any(message.node.id == current_id for message in repaired):
        report.drop(name, f"the current node {current_id} is missing")
        current_id = None
    conversation = Conversation(conversation_id, title, created_at, updated_at, current_id, meta)
    return Document(conversation, repaired, source)


def _source(record: dict[str, Any]) -> Source | None:
    return Source(string(record, "name"), string(record, "id")) if record else None
