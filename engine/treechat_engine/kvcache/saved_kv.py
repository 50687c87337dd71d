"""Persist the warmest prefixes of a cache between processes: `save_kv` and `load_kv`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from treechat_engine.kvcache.cache import KVCache
from treechat_engine.kvcache.disk import (
    MAX_SEGMENT_LEN,
    DamagedError,
    file_name,
    find_files,
    is_usable,
    remove_others,
    write_file,
)
from treechat_engine.kvcache.radix_node import DISK, Ints, RadixNode


@dataclass(frozen=True, slots=True)
class SavedKV:
    """The result of `save_kv` or `load_kv`.

    num_tokens: tokens of KV written or found.
    num_bytes: their size.
    num_files: their files.
    notes: one note per file that was skipped.
    """

    num_tokens: int = 0
    num_bytes: int = 0
    num_files: int = 0
    notes: list[str] = field(default_factory=list)


class PathSegment(NamedTuple):
    """Positions start .. len(path_ids) of a path."""

    path_ids: Ints
    start: int


def save_kv(
    cache: KVCache, lock: AbstractContextManager[object], directory: Path, model_key: str, budget_bytes: int | None
) -> SavedKV:
    """Write the warmest prefixes to `directory`, and remove its earlier KV files. Raises OSError.

    lock: guards the cache; held while a segment is read, not while it is written.
    directory: created if it does not exist. A segment that already has a sound file is not written again.
    model_key: the model's fingerprint.
    budget_bytes: the size limit; None: no limit.
    """
    directory.mkdir(parents=True, exist_ok=True)
    width, dtype = cache.lower_tiers.rows.width, cache.lower_tiers.rows.dtype
    token_bytes = width * dtype.itemsize
    with lock:
        budget = cache.tree.num_in_all if budget_bytes is None else budget_bytes // token_bytes
        segments = list(_segments(cache, budget))
    names: set[str] = set()
    num_tokens = 0
    notes: list[str] = []
    for path_ids, start in segments:
        name = file_name(path_ids)
        if name in cache.lower_tiers.damaged_files or not is_usable(directory / name, model_key, width, dtype):
            with lock:
                try:
                    rows = cache.read(path_ids, start)
                except DamagedError as error:
                    notes.append(error.message)
                    continue
            if rows is None:
                continue
            write_file(directory, model_key, path_ids, start, rows)
        names.add(name)
        num_tokens += len(path_ids) - start
    remove_others(directory, names)
    return SavedKV(num_tokens, num_tokens * token_bytes, len(names), notes)


def load_kv(cache: KVCache, lock: AbstractContextManager[object], directory: Path, model_key: str) -> SavedKV:
    """Find the files of `save_kv` in `directory`, if there are any. Rows are read when a lease needs them.

    cache: receives the paths of the files.
    lock: guards the cache; held while the paths are inserted.
    directory: may be missing.
    model_key: the model's fingerprint.
    """
    rows = cache.lower_tiers.rows
    found, notes = find_files(directory, model_key, rows.width, rows.dtype)
    with lock:
        for whole, file in found:
            prefix = cache.tree.match(whole[: file.prefix_len])
            node = prefix.lower_nodes[-1] if prefix.lower_nodes else prefix.node
            cache.tree.insert(file.ids[:], cache.lower_tiers.add_file(file), node, DISK)
    num_tokens = sum(file.num_tokens for _, file in found)
    return SavedKV(num_tokens, num_tokens * rows.width * rows.dtype.itemsize, len(found), notes)


def _segments(cache: KVCache, budget: int) -> Iterator[PathSegment]:
    """Yield the warmest nodes and their ancestors, cut to MAX_SEGMENT_LEN and to `budget` tokens, prefixes first."""
    tree, ranking = cache.tree, cache.policy.ranking(cache.tree)
    lengths: dict[RadixNode, int] = {}
    for node in sorted(tree.nodes(), key=ranking, reverse=True):
        for each in tree.path(node):
            if each not in lengths and budget > 0:
                lengths[each] = min(len(each.ids), budget)
                budget -= lengths[each]
    paths: dict[RadixNode, Ints] = {}
    for node, size in lengths.items():
        assert node.parent is not None, "the root has no KV"
        above = paths.get(node.parent, node.ids[:0])
        paths[node] = above + node.ids
        for start in range(0, size, MAX_SEGMENT_LEN):
            stop = len(above) + min(start + MAX_SEGMENT_LEN, size)
            yield PathSegment(paths[node][:stop], len(above) + start)
