"""Foreign, damaged or forged KV files and full disks: nothing is used that its hash does not confirm."""

from __future__ import annotations

import os
import resource
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.engine.kvcache.saved_caches import PATH, files_of, load, make_cache, put, save, saved
from treechat_engine.kvcache.cache import KVCache
from treechat_engine.kvcache.disk import MAX_SEGMENT_LEN
from treechat_engine.kvcache.slots import SlotPool


def test_another_models_files_are_skipped_with_a_note(tmp_path: Path) -> None:
    saved(tmp_path)
    cache = make_cache()
    loaded = load(cache, tmp_path, model="other")
    assert (loaded.num_files, len(loaded.notes)) == (0, 3)
    assert all("another model" in note for note in loaded.notes)
    assert cache.peek(PATH).host == 0


def test_a_pool_of_another_shape_uses_no_file(tmp_path: Path) -> None:
    saved(tmp_path)
    cache = KVCache(SlotPool(8, [(2, 2, 1)], torch.float32, "cpu"))
    assert "width 6" in load(cache, tmp_path).notes[0]


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_truncated_file_is_skipped_with_the_files_that_continue_it(tmp_path: Path, size: int) -> None:
    saved(tmp_path)
    trunk = files_of(tmp_path)[0]
    data = trunk.read_bytes()
    trunk.write_bytes(data[:size] if size >= 0 else data[:-1])
    cache = make_cache()
    loaded = load(cache, tmp_path)
    assert (loaded.num_files, len(loaded.notes)) == (0, 3)
    assert trunk.name in loaded.notes[0] and "before it is missing" in loaded.notes[1]
    cache.check()


FORGED = {
    "ids of 64 bits": lambda ids, rows: (torch.full((len(ids),), 2**63, dtype=torch.uint64), rows),
    "ids that are no integers": lambda ids, rows: (ids.double(), rows),
    "ids in two dimensions": lambda ids, rows: (ids.view(3, 4), rows),
    "one id": lambda ids, rows: (ids[0], rows),
    "no ids": lambda ids, rows: (ids[:0], rows[:0]),
    "more ids than a stretch": lambda ids, rows: (
        torch.zeros(MAX_SEGMENT_LEN + 1).long(),
        torch.zeros(MAX_SEGMENT_LEN + 1, 3),
    ),
    "one number for all rows": lambda ids, rows: (ids, rows[0, 0]),
    "rows of another kind": lambda ids, rows: (ids, rows.half()),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_a_file_of_other_tensors_is_skipped_with_a_note(tmp_path: Path, forge) -> None:
    saved(tmp_path)
    trunk = files_of(tmp_path)[0]
    with safe_open(trunk, "pt") as file:
        metadata, ids, rows = file.metadata(), file.get_tensor("ids"), file.get_tensor("rows")
    ids, rows = forge(ids, rows)
    save_file({"ids": ids.clone(), "rows": rows.clone()}, trunk, metadata)
    loaded = load(make_cache(), tmp_path)
    assert loaded.num_files == 0 and loaded.notes[0].startswith(trunk.name)


@pytest.mark.parametrize("field", ["model", "prefix", "prefix_len", "rows", "seal"])
@pytest.mark.parametrize("value", [None, "", "9" * 5000, "-1"], ids=["absent", "empty", "long", "negative"])
def test_a_file_of_other_metadata_is_skipped_with_a_note(tmp_path: Path, field: str, value: str | None) -> None:
    saved(tmp_path)
    trunk = files_of(tmp_path)[0]
    with safe_open(trunk, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in ("ids", "rows")}
    del metadata[field]
    save_file(tensors, trunk, metadata if value is None else metadata | {field: value})
    loaded = load(make_cache(), tmp_path)
    assert loaded.num_files == 0 and loaded.notes[0].startswith(trunk.name)


@pytest.mark.parametrize("header_len", [10 << 30, 2**63, 90 << 20])
def test_a_file_with_a_huge_header_is_skipped(tmp_path: Path, header_len: int) -> None:
    saved(tmp_path)
    trunk = files_of(tmp_path)[0]
    trunk.write_bytes(struct.pack("<Q", header_len) + b"{}")
    assert load(make_cache(), tmp_path).notes[0].startswith(trunk.name)


def test_rows_of_nan_are_computed_again_even_if_their_hash_agrees(tmp_path: Path) -> None:
    cache = make_cache()
    put(cache, PATH)
    cache.pool.v[0][3] = float("nan")
    save(cache, tmp_path)
    other = make_cache()
    load(other, tmp_path)
    assert other.lease([*PATH, 1]).cached_len == 0
    assert other.tree.num_in_all == 0
    other.check()


@pytest.mark.parametrize("damage", ["cut", "changed rows", "another model"])
def test_an_unusable_file_is_written_again(tmp_path: Path, damage: str) -> None:
    saved(tmp_path)
    trunk = files_of(tmp_path)[0]
    data = bytearray(trunk.read_bytes())
    data[-1] ^= 1
    trunk.write_bytes(data[:-1] if damage == "cut" else data)
    model = "other" if damage == "another model" else "model"
    cache = make_cache()
    load(cache, tmp_path, model)
    put(cache, PATH)
    save(cache, tmp_path, model=model)
    third = make_cache()
    assert load(third, tmp_path, model).notes == []
    assert third.lease([*PATH, 1]).restored_len == len(PATH)


def test_other_files_are_neither_opened_nor_removed(tmp_path: Path) -> None:
    saved(tmp_path)
    weights, folder, pipe = (
        tmp_path / name for name in ("model.safetensors", "x.safetensors", f"{'0' * 40}.safetensors")
    )
    weights.write_bytes(b"precious")
    folder.mkdir()
    os.mkfifo(pipe)
    assert load(make_cache(), tmp_path).num_files == 3
    assert save(make_cache(), tmp_path, budget_bytes=0).num_files == 0
    assert sorted(tmp_path.iterdir()) == sorted([weights, folder, pipe])


def test_a_link_in_place_of_a_file_is_replaced_and_its_target_is_not_written(tmp_path: Path) -> None:
    directory, elsewhere = tmp_path / "kv", tmp_path / "elsewhere"
    saved(directory)
    trunk = files_of(directory)[0]
    elsewhere.write_bytes(b"precious")
    trunk.unlink()
    trunk.symlink_to(elsewhere)
    saved(directory)
    assert elsewhere.read_bytes() == b"precious" and not trunk.is_symlink()
    assert load(make_cache(), directory).num_files == 3


def test_files_that_another_process_writes_are_kept_and_those_of_a_killed_one_removed(tmp_path: Path) -> None:
    saved(tmp_path)
    young, old = (tmp_path / f".{'0' * 40}.safetensors.{name}.part" for name in ("young", "old"))
    young.touch()
    old.touch()
    os.utime(old, (0, 0))
    save(make_cache(), tmp_path)
    assert list(tmp_path.iterdir()) == [young]


def test_a_full_disk_leaves_only_complete_files(tmp_path: Path) -> None:
    cache = make_cache(2000)
    put(cache, list(range(MAX_SEGMENT_LEN + 5)))
    put(cache, [7, 8])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Writes beyond this size fail, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match=r"(?i)too large"):
            save(cache, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.glob(".*"))
    assert load(make_cache(2000), tmp_path).notes == []


def test_changed_ids_are_noticed_when_the_file_is_found(tmp_path: Path) -> None:
    saved(tmp_path)
    branch = files_of(tmp_path)[-2]
    with safe_open(branch, "pt") as file:
        metadata, ids, rows = file.metadata(), file.get_tensor("ids"), file.get_tensor("rows")
    save_file({"ids": ids + 1, "rows": rows}, branch, metadata)
    loaded = load(make_cache(), tmp_path)
    assert loaded.num_files == 2 and "changed since it was written" in loaded.notes[0]


def test_a_file_under_another_files_name_is_skipped(tmp_path: Path) -> None:
    saved(tmp_path)
    files = files_of(tmp_path)
    files[-3].write_bytes(files[-2].read_bytes())
    loaded = load(make_cache(), tmp_path)
    assert loaded.num_files == 2 and "another path" in loaded.notes[0]


def test_changed_rows_are_noticed_when_they_are_read_and_computed_again(tmp_path: Path) -> None:
    saved(tmp_path)
    branch = files_of(tmp_path)[-2]
    data = bytearray(branch.read_bytes())
    data[-1] ^= 1
    branch.write_bytes(data)
    cache = make_cache()
    assert load(cache, tmp_path).notes == []
    lease = cache.lease([*PATH, 1, 2, 9])
    assert lease.cached_len == len(PATH)
    assert cache.peek([*PATH, 1, 2]).host == 0
    cache.check()


def test_the_kv_of_a_file_removed_before_its_use_is_computed_again(tmp_path: Path) -> None:
    saved(tmp_path)
    cache = make_cache()
    load(cache, tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    lease = cache.lease([*PATH, 1])
    assert (lease.cached_len, cache.tree.num_in_all) == (0, 0)
    assert save(cache, tmp_path).num_files == 0
    cache.check()


def test_a_write_that_fails_leaves_no_part_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make_cache()
    put(cache, PATH)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        save(cache, tmp_path)
    assert list(tmp_path.iterdir()) == []
