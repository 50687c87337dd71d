"""KV in files: segments of cached paths as safetensors, for the next process.

A file holds the token ids of a segment and its rows [n, width]. Its metadata identifies their owner: the model's
fingerprint and the path before the segment. The file's name is a hash of its path. The hashes of ids and metadata are
checked when a file is found, the hash of the rows at each read. Files with other names are ignored.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from array import array
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from treechat_engine.api import EngineError
from treechat_engine.kvcache.radix_node import Ints

FORMAT = "treechat-kv-1"
_DIGITS = 40
_NAME = re.compile(rf"[0-9a-f]{{{_DIGITS}}}\.safetensors")
# Tokens. A segment is read, and its hash checked, as a whole: 24 MB of the default model, 15 ms.
MAX_SEGMENT_LEN = 512
# A partial file that was not written to for this long was left by a killed process.
_MAX_PART_AGE_S = 3600


class DamagedError(EngineError):
    """A file of KV is missing, or differs from what was written."""


def path_key(ids: Ints) -> str:
    """Return a name for a path of token ids."""
    return hashlib.sha256(ids.tobytes()).hexdigest()[:_DIGITS]


def fingerprint(model: Any, dtype: torch.dtype) -> str:
    """Return a name for the owner of KV: the model's config, samples of its weights, and its precision."""
    digest = hashlib.sha256(f"{FORMAT} {dtype}".encode())
    config = model.config.to_dict()
    for name in sorted(config):
        # The model's location and the library's version do not change its results.
        if name not in ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "_attn_implementation"):
            digest.update(f"{name}={config[name]!r}\n".encode())
    for name, weight in model.named_parameters():
        flat = weight.detach().reshape(-1)
        sample = flat[:: max(1, flat.shape[0] // 256)][:256].float().cpu()
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:_DIGITS]


@dataclass
class KVFile:
    """A segment of a path in a file.

    path: the file.
    prefix_key: the name of the path before the segment.
    prefix_len: the length of that path in tokens.
    ids: the segment's token ids.
    rows_hash: the hash of the rows.
    first_row: the number of its first row among the rows of all files.
    """

    path: Path
    prefix_key: str
    prefix_len: int
    ids: Ints
    rows_hash: str
    first_row: int = 0

    @property
    def num_tokens(self) -> int:
        return len(self.ids)

    def read(self) -> torch.Tensor:
        """Return the rows [n, width]. Raises DamagedError if they differ from what was written."""
        try:
            with safe_open(self.path, "pt") as file:
                rows: torch.Tensor = file.get_tensor("rows")
        except (OSError, SafetensorError) as error:
            raise DamagedError(f"{self.path.name}: {error}") from error
        if rows.shape[0] != self.num_tokens or _hash_of(rows) != self.rows_hash:
            raise DamagedError(f"{self.path.name}: the rows differ from those that were written")
        if not bool(rows.isfinite().all()):
            raise DamagedError(f"{self.path.name}: the rows are not finite")
        return rows


def write_file(directory: Path, model_key: str, path_ids: Ints, start: int, rows: torch.Tensor) -> Path:
    """Write the rows of path_ids[start:], completely or not at all. Raises OSError.

    directory: where the file is made.
    model_key: the model's fingerprint.
    path_ids: the path up to the segment's end.
    start: the position of the segment's first token.
    rows: [n, width], the segment's KV.
    """
    ids = path_ids[start:]
    metadata = {
        "format": FORMAT,
        "model": model_key,
        "prefix": path_key(path_ids[:start]),
        "prefix_len": str(start),
        "rows": _hash_of(rows),
    }
    target = directory / file_name(path_ids)
    metadata["seal"] = _seal(metadata, ids)
    handle, name = tempfile.mkstemp(".part", f".{target.name}.", directory)
    os.close(handle)
    part = Path(name)
    try:
        save_file({"ids": torch.tensor(ids.tolist(), dtype=torch.int64), "rows": rows}, part, metadata)
        part.replace(target)
    except SafetensorError as error:
        raise OSError(f"{part}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    return target


def file_name(path_ids: Ints) -> str:
    """Return the file name of a segment that ends at the end of `path_ids`."""
    return f"{path_key(path_ids)}.safetensors"


def open_file(path: Path, model_key: str, width: int, dtype: torch.dtype) -> KVFile:
    """Read everything except the rows. Raises DamagedError if the file is incomplete or for another model.

    path: the file.
    model_key: the model's fingerprint.
    width: the length of a row.
    dtype: the precision of the rows.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise DamagedError(f"{path.name}: not a KV file of this version")
            if metadata.get("model") != model_key:
                raise DamagedError(f"{path.name}: for another model")
            size, shape = file.get_slice("ids").get_shape(), file.get_slice("rows").get_shape()
            if len(size) != 1 or not 0 < size[0] <= MAX_SEGMENT_LEN or shape != [size[0], width]:
                raise DamagedError(
                    f"{path.name}: rows of shape {shape} for ids of shape {size}, expected width {width}"
                )
            kind = file.get_slice("rows")[:0].dtype
            ids = array("q", file.get_tensor("ids").tolist())
            prefix_len = int(metadata["prefix_len"])
            is_sealed = metadata["seal"] == _seal(metadata, ids)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise DamagedError(f"{path.name}: cannot be read ({error})") from error
    if not is_sealed:
        raise DamagedError(f"{path.name}: changed since it was written")
    if kind != dtype:
        raise DamagedError(f"{path.name}: rows of {kind}, expected {dtype}")
    return KVFile(path, metadata["prefix"], prefix_len, ids, metadata["rows"])


def is_usable(path: Path, model_key: str, width: int, dtype: torch.dtype) -> bool:
    """Return whether `open_file` accepts `path` with these parameters."""
    try:
        return path.is_file() and open_file(path, model_key, width, dtype) is not None
    except DamagedError:
        return False


def find_files(
    directory: Path, model_key: str, width: int, dtype: torch.dtype
) -> tuple[list[tuple[Ints, KVFile]], list[str]]:
    """Return the usable files, each with the whole path up to its end, prefixes first; and notes on the other files.

    directory: where the files are; the other parameters are those of `open_file`.
    """
    notes: list[str] = []
    files: list[KVFile] = []
    for path in sorted(_files_in(directory)):
        try:
            files.append(open_file(path, model_key, width, dtype))
        except DamagedError as error:
            notes.append(error.message)
    empty = array("q")
    paths: dict[str, Ints] = {path_key(empty): empty}
    found: list[tuple[Ints, KVFile]] = []
    for file in sorted(files, key=lambda each: each.prefix_len):
        prefix = paths.get(file.prefix_key)
        if prefix is None or len(prefix) != file.prefix_len:
            notes.append(f"{file.path.name}: the segment before it is missing")
            continue
        whole = prefix + file.ids
        if file.path.name != file_name(whole):
            notes.append(f"{file.path.name}: the name is that of another path")
            continue
        paths[path_key(whole)] = whole
        found.append((whole, file))
    return found, notes


def remove_others(directory: Path, keep: Collection[str]) -> None:
    """Delete the KV files in `directory` that are not named in `keep`, and partial files of killed processes."""
    for path in _files_in(directory):
        if path.name not in keep:
            path.unlink(missing_ok=True)
    for path in directory.glob(".*.safetensors.*.part"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _MAX_PART_AGE_S:
                path.unlink()


def _files_in(directory: Path) -> Iterator[Path]:
    """Return the regular files that are named like a KV file. Opening a pipe would block forever."""
    return (path for path in directory.glob("*.safetensors") if _NAME.fullmatch(path.name) and path.is_file())


def _seal(metadata: dict[str, str], ids: Ints) -> str:
    parts = [f"{name}={metadata[name]}" for name in ("format", "model", "prefix", "prefix_len", "rows")]
    return hashlib.sha256("\n".join(parts).encode() + ids.tobytes()).hexdigest()


def _hash_of(rows: torch.Tensor) -> str:
    return hashlib.sha256(rows.contiguous().view(torch.uint8).numpy().data).hexdigest()
