"""Read the header of a GGUF file, without torch: its scalar metadata and the size of its tensors.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Arrays (the vocabulary) are skipped.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from treechat.errors import ModelError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_COUNT = 1 << 24
"""The most entries, or bytes of one string, accepted in a header: far above any real file."""


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """The part of a header that treechat uses.

    metadata: scalars and strings by key.
    num_params: elements of all tensors.
    """

    metadata: dict[str, Any]
    num_params: int

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", "unknown"))


class _Cursor:
    """Read consecutive little-endian values. Raises struct.error at the end of the data."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.offset = 0

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.data, self.offset)
        self.offset += struct.calcsize("<" + code)
        return value

    def count(self, code: str = "Q") -> int:
        count = int(self.scalar(code))
        if count > _MAX_COUNT:
            raise ValueError(f"a count of {count}")
        return count

    def string(self) -> str:
        text_len = self.count()
        raw = self.data[self.offset : self.offset + text_len]
        self.offset += text_len
        return raw.decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        """Read one value of that kind; an array is skipped and returns None."""
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.scalar(_SCALARS[kind])
        inner, num_items = self.scalar("I"), self.count()
        if inner in _SCALARS:
            self.offset += num_items * struct.calcsize("<" + _SCALARS[inner])
        else:
            for _ in range(num_items):
                if inner != _STRING:
                    raise ValueError("an array of arrays")
                text_len = self.count()
                self.offset += text_len
        return None


def read_header(path: Path) -> GGUFHeader:
    """Read the header. Raises ModelError if it is damaged or the file is too short for its tensors."""
    hint = "Download the file again; it must be a whole little-endian GGUF of version 2 or 3"
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:4] != b"GGUF":
                raise ModelError(f"{path.name} is not a GGUF file", hint)
            header, end = _parse(_Cursor(data))
            if end > len(data):
                raise ModelError(f"{path.name} is cut off: {len(data):,} bytes of {end:,}", hint)
            return header
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except (struct.error, ValueError, KeyError, OverflowError) as error:
        raise ModelError(f"{path.name} has a damaged header ({error})", hint) from error


def _parse(cursor: _Cursor) -> tuple[GGUFHeader, int]:
    """The header, and the least size of the file in bytes."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    cursor.offset = 4
    version = cursor.scalar("I")
    if version not in (2, 3):
        raise ValueError(f"version {version}")
    num_tensors, num_keys = cursor.count(), cursor.count()
    metadata = {}
    for _ in range(num_keys):
        key, kind = cursor.string(), cursor.scalar("I")
        value = cursor.value(kind)
        if value is not None:
            metadata[key] = value
    num_params, data_len = 0, 0
    for _ in range(num_tensors):
        cursor.string()
        shape = [cursor.scalar("Q") for _ in range(cursor.count("I"))]
        kind, offset = cursor.scalar("I"), cursor.scalar("Q")
        block_len, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        num_params += prod(shape)
        data_len = max(data_len, offset + prod(shape) // block_len * block_bytes)
    alignment = int(metadata.get("general.alignment", 32)) or 32
    start = -(-cursor.offset // alignment) * alignment
    return GGUFHeader(metadata, num_params), start + data_len
