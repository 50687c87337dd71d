"""Convert values to columns: safe text, packed token ids and log-probabilities, JSON.

Ids are little-endian uint32 and log-probabilities little-endian float32, four bytes each, without a header. Any tool
can read them with `numpy.frombuffer(blob, "<u4")` and `"<f4"`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from treechat.tree import Span


def clean(text: str) -> str:
    """Make text valid for SQLite and UTF-8: NUL and lone surrogates become U+FFFD, a surrogate pair one character."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def pack_ids(ids: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(ids)}I", *ids)


def unpack_ids(blob: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(blob) // 4}I", blob[: len(blob) // 4 * 4])


def pack_logprobs(logprobs: Sequence[float] | None) -> bytes | None:
    return None if logprobs is None else struct.pack(f"<{len(logprobs)}f", *logprobs)


def unpack_logprobs(blob: bytes | None) -> tuple[float, ...] | None:
    return None if blob is None else struct.unpack(f"<{len(blob) // 4}f", blob[: len(blob) // 4 * 4])


def unpack_span(tokenizer: str, ids: bytes, logprobs: bytes | None) -> Span:
    """A span from its columns. If the counts of log-probabilities and ids differ, the log-probabilities are dropped."""
    unpacked = unpack_ids(ids)
    probabilities = unpack_logprobs(logprobs)
    if probabilities is not None and len(probabilities) != len(unpacked):
        probabilities = None
    return Span(tokenizer, unpacked, probabilities)


def dump_json(value: Any) -> str:
    """ASCII JSON, so that no surrogate reaches SQLite. Values of other types are written as their `str`."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=str)


def load_mapping(text: str | None) -> Mapping[str, Any]:
    """The JSON object in `text`; empty if the text is damaged or no object, so that a node always opens."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
