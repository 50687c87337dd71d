"""KV in files: stretches of cached paths as safetensors, to be found again by the next process.

A file holds the token ids of a stretch and its rows [n, width], and in its metadata what they belong to: the model's
fingerprint and the path before the stretch. It is named by its path. A file is trusted only as far as its hashes say:
ids and metadata when it is found, rows each time they are read. Whatever else lies in the directory is left alone.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from treechat_engine.api import EngineError
from treechat_engine.edges import Ints

FORMAT = "treechat-kv-1"
_DIGITS = 40


class DamagedError(EngineError):
    """A file of KV is not what was written, or is gone."""


def path_key(ids: Ints) -> str:
    """Names a path of token ids."""
    return hashlib.sha256(ids.tobytes()).hexdigest()[:_DIGITS]


def fingerprint(model: Any, dtype: torch.dtype) -> str:
    """Names what KV belongs to: the model's config, samples of its weights, and the precision it runs in."""
    digest = hashlib.sha256(f"{FORMAT} {dtype}".encode())
    config = model.config.to_dict()
    for name in sorted(config):
        # Where a model was read from, and by which version of the library, does not change what it computes.
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
    """A stretch of a path that lies in a file. first_row: the number of its first row among those of all files."""

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
        """The rows [n, width]. Raises DamagedError where they are not those that were written."""
        try:
            with safe_open(self.path, "pt") as file:
                rows: torch.Tensor = file.get_tensor("rows")
        except (OSError, SafetensorError) as error:
            raise DamagedError(f"{self.path.name}: {error}") from error
        if rows.shape[0] != self.num_tokens or _hash_of(rows) != self.rows_hash:
            raise DamagedError(f"{self.path.name}: the rows are not those that were written")
        return rows


def write_file(directory: Path, model_key: str, path_ids: Ints, start: int, rows: torch.Tensor) -> Path:
    """Write the rows of path_ids[start:], whole or not at all. Raises OSError."""
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
    part = directory / f".{target.name}.{os.getpid()}.part"
    try:
        save_file({"ids": torch.tensor(ids.tolist(), dtype=torch.int64), "rows": rows}, part, metadata)
        part.replace(target)
    except SafetensorError as error:
        raise OSError(f"{part}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    return target


def file_name(path_ids: Ints) -> str:
    """The name of the file of a stretch that ends where `path_ids` does."""
    return f"{path_key(path_ids)}.safetensors"


def open_file(path: Path, model_key: str, width: int, dtype: torch.dtype) -> KVFile:
    """Reads all but the rows. Raises DamagedError with the reason where the file is not for this model or not whole."""
    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise DamagedError(f"{path.name}: not a file of KV of this version")
            if metadata.get("model") != model_key:
                raise DamagedError(f"{path.name}: of another model")
            ids = array("q", file.get_tensor("ids").tolist())
            rows = file.get_slice("rows")
            shape, kind = rows.get_shape(), rows[:0].dtype
            prefix_len = int(metadata["prefix_len"])
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DamagedError(f"{path.name}: cannot be read ({error})") from error
    if metadata.get("seal") != _seal(metadata, ids):
        raise DamagedError(f"{path.name}: changed since it was written")
    if not ids or shape != [len(ids), width] or kind != dtype:
        raise DamagedError(f"{path.name}: {kind} rows of shape {shape}, for {len(ids)} tokens of width {width}")
    return KVFile(path, metadata["prefix"], prefix_len, ids, metadata["rows"])


def find_files(
    directory: Path, model_key: str, width: int, dtype: torch.dtype
) -> tuple[list[tuple[Ints, KVFile]], list[str]]:
    """The files that can be used, each with the whole path that it ends, beginnings first; and notes on the others."""
    notes: list[str] = []
    files: list[KVFile] = []
    for path in sorted(directory.glob("*.safetensors")):
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
            notes.append(f"{file.path.name}: what it goes on from is not here")
            continue
        whole = prefix + file.ids
        if file.path.name != file_name(whole):
            notes.append(f"{file.path.name}: of another path than its name says")
            continue
        paths[path_key(whole)] = whole
        found.append((whole, file))
    return found, notes


def remove_others(directory: Path, keep: Sequence[str]) -> None:
    """Delete the files of KV in `directory` that are not named in `keep`, and what a killed process left."""
    kept = set(keep)
    for path in (*directory.glob("*.safetensors"), *directory.glob(".*.part")):
        if path.name not in kept:
            path.unlink(missing_ok=True)


def _seal(metadata: dict[str, str], ids: Ints) -> str:
    parts = [f"{name}={metadata[name]}" for name in ("format", "model", "prefix", "prefix_len", "rows")]
    return hashlib.sha256("\n".join(parts).encode() + ids.tobytes()).hexdigest()


def _hash_of(rows: torch.Tensor) -> str:
    return hashlib.sha256(rows.contiguous().view(torch.uint8).numpy().data).hexdigest()
