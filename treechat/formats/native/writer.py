"""Write treechat's own format: JSON Lines with a header line, then one node per line, parents before children.

A file may contain several conversations in sequence. Absent and empty fields are omitted, keys have a fixed order, and
only stored data is written: export, import, export gives the same bytes. The JSON schema is
assets/treechat.schema.json; `native.reader` reads the format.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from treechat.formats.document import Document, Message
from treechat.tree import Span, Turn

FORMAT = "treechat"
VERSION = 1

_MAX_DEPTH = 100
"""Depth at which a meta is cut if it cannot be written unchanged."""


def write_native(documents: Iterable[Document], tokens: bool = False) -> Iterator[str]:
    """Yield the lines, each with its line end. tokens: include spans and logprobs."""
    for document in documents:
        yield _line(_header(document, tokens))
        for message in document.messages:
            yield _line(_node(message, tokens))


def _line(record: dict[str, Any]) -> str:
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
    except (ValueError, RecursionError):
        return json.dumps(_json_safe(record), ensure_ascii=False, allow_nan=False) + "\n"


def _json_safe(value: Any, depth: int = _MAX_DEPTH) -> Any:
    """Return the value with null for NaN, infinity, and objects that are too deep; imported data may contain them."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _json_safe(item, depth - 1) for key, item in value.items()} if depth else None
    if isinstance(value, list | tuple):
        return [_json_safe(item, depth - 1) for item in value] if depth else None
    return value


def _header(document: Document, tokens: bool) -> dict[str, Any]:
    conversation = document.conversation
    record: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "id": conversation.id,
        "title": conversation.title,
        "created": conversation.created_at,
        "updated": conversation.updated_at,
        "current": conversation.current_id,
        "models": sorted({message.turn.model for message in document.messages if message.turn}),
    }
    if tokens:
        record["tokenizers"] = sorted({span.tokenizer for message in document.messages for span in message.spans})
    source = document.source
    if source is not None and tuple(source) != (FORMAT, conversation.id):
        record["source"] = {"name": source[0], "id": source[1]}
    if conversation.meta:
        record["meta"] = dict(conversation.meta)
    return record


def _node(message: Message, tokens: bool) -> dict[str, Any]:
    node = message.node
    record: dict[str, Any] = {
        "id": node.id,
        "parent": node.parent_id,
        "role": node.role,
        "text": message.text,
        # A reply that is still streaming is incomplete in the file.
        "status": "interrupted" if node.status == "streaming" else node.status,
        "created": node.created_at,
    }
    if message.turn:
        record["turn"] = _turn(message.turn)
    if message.labels:
        record["labels"] = list(message.labels)
    if node.bookmarked:
        record["bookmarked"] = True
    if message.meta:
        record["meta"] = dict(message.meta)
    if tokens and message.spans:
        record["spans"] = [_span(span) for span in sorted(message.spans, key=lambda span: span.tokenizer)]
    return record


def _turn(turn: Turn) -> dict[str, Any]:
    values = {item.name: getattr(turn, item.name) for item in fields(turn)}
    values["sampling"] = dict(sorted(turn.sampling.items()))
    return {name: value for name, value in values.items() if value is not None}


def _span(span: Span) -> dict[str, Any]:
    record: dict[str, Any] = {"tokenizer": span.tokenizer, "ids": list(span.ids)}
    if span.logprobs is not None:
        # JSON has no infinity: the logprob of a token with probability 0 is null.
        record["logprobs"] = [value if math.isfinite(value) else None for value in span.logprobs]
    return record
