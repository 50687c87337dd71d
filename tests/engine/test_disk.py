"""KV from one process to the next: found again for the same model, and never trusted further than its hashes."""

from __future__ import annotations

from array import array
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from treechat_engine import SamplingParams
from treechat_engine.cache import KVCache
from treechat_engine.keeping import Kept, load_kv, save_kv
from treechat_engine.slots import SlotPool

PATH = list(range(100, 112))


def make_cache(num_slots: int = 64, **options) -> KVCache:
    return KVCache(SlotPool(num_slots, [(1, 2, 1)], torch.float32, "cpu", poison=True), **options)


def put(cache: KVCache, ids: list[int]) -> None:
    lease = cache.lease(ids)
    assert cache.grow(lease, len(ids) - lease.cached_len)
    values = torch.tensor(ids[lease.cached_len :]).float().view(-1, 1, 1)
    cache.pool.k[0][lease.slots[lease.cached_len :].tolist()] = values.expand(-1, 1, 2)
    cache.pool.v[0][lease.slots[lease.cached_len :].tolist()] = -values
    cache.commit(lease, ids)
    cache.release(lease)


def save(cache: KVCache, directory: Path, budget_bytes: int | None = None, model: str = "model") -> Kept:
    return save_kv(cache, nullcontext(), directory, model, budget_bytes)


def load(cache: KVCache, directory: Path, model: str = "model") -> Kept:
    return load_kv(cache, nullcontext(), directory, model)


def saved(directory: Path) -> None:
    """A trunk with two branches, in three files."""
    cache = make_cache()
    put(cache, PATH)
    put(cache, [*PATH, 1, 2])
    put(cache, [*PATH, 3, 4, 5])
    assert save(cache, directory).num_tokens == len(PATH) + 5


def files_of(directory: Path) -> dict[int, Path]:
    """By number of tokens before it, or minus its length where it is a branch."""
    found = {}
    for path in directory.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            start, size = int(file.metadata()["prefix_len"]), len(file.get_tensor("ids"))
            found[-size if start else 0] = path
    return found


def test_saved_prefixes_are_found_read_when_wanted_and_right(tmp_path: Path) -> None:
    saved(tmp_path)
    cache = make_cache()
    kept = load(cache, tmp_path)
    assert (kept.num_tokens, kept.num_files, kept.notes) == (17, 3, [])
    assert (cache.peek([*PATH, 1, 2]).host, cache.num_cached) == (14, 0)
    lease = cache.lease([*PATH, 3, 4, 5, 6])
    assert (lease.cached_len, lease.restored_len, cache.num_cached) == (15, 15, 15)
    assert cache.pool.k[0][lease.slots.tolist(), 0, 1].tolist() == [*PATH, 3, 4, 5]
    assert cache.pool.v[0][lease.slots.tolist()].flatten().tolist() == [-i for i in [*PATH, 3, 4, 5]]
    cache.check()
    cache.release(lease)
    cache.clear()
    assert cache.peek([*PATH, 1, 2]).total == cache.peek([*PATH, 1, 2]).cold


def test_a_prefix_that_ends_inside_a_file_is_read_to_there(tmp_path: Path) -> None:
    saved(tmp_path)
    cache = make_cache()
    load(cache, tmp_path)
    lease = cache.lease([*PATH[:5], 77, 78])
    assert lease.restored_len == 5
    assert cache.pool.k[0][lease.slots.tolist(), 0, 0].tolist() == PATH[:5]
    cache.check()


def test_long_stretches_are_cut_and_the_budget_is_kept_from_the_beginning_on(tmp_path: Path) -> None:
    cache, ids = make_cache(2000), list(range(1500))
    put(cache, ids)
    kept = save(cache, tmp_path, budget_bytes=1100 * 12)
    assert (kept.num_tokens, kept.num_bytes, kept.num_files) == (1100, 1100 * 12, 3)
    other = make_cache(2000)
    load(other, tmp_path)
    assert other.peek(ids).host == 1100
    assert other.lease(ids).restored_len == 1100
    other.check()


def test_the_protected_path_is_kept_before_others(tmp_path: Path) -> None:
    cache = make_cache()
    put(cache, [1, 2, 3, 4])
    put(cache, [5, 6, 7, 8])
    cache.protect([[1, 2, 3, 4]])
    assert save(cache, tmp_path, budget_bytes=4 * 12).num_tokens == 4
    other = make_cache()
    load(other, tmp_path)
    assert (other.peek([1, 2, 3, 4]).host, other.peek([5, 6, 7, 8]).host) == (4, 0)


def test_saving_again_writes_only_what_is_new_and_removes_what_is_no_longer_kept(tmp_path: Path) -> None:
    saved(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    cache = make_cache()
    load(cache, tmp_path)
    put(cache, [*PATH, 1, 2, 9])
    save(cache, tmp_path)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(after) == 4 and before.items() <= after.items()
    cache.clear()
    save(cache, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_prefix_that_is_on_the_host_or_still_in_a_file_is_saved_too(tmp_path: Path) -> None:
    cache = make_cache(host_slots=64)
    put(cache, PATH)
    cache.evict(64)
    assert save(cache, tmp_path / "a").num_tokens == len(PATH)
    other = make_cache()
    load(other, tmp_path / "a")
    assert save(other, tmp_path / "b").num_tokens == len(PATH)
    third = make_cache()
    load(third, tmp_path / "b")
    lease = third.lease([*PATH, 1])
    assert third.pool.k[0][lease.slots.tolist(), 0, 0].tolist() == PATH


def test_another_models_files_are_left_out_with_a_note(tmp_path: Path) -> None:
    saved(tmp_path)
    cache = make_cache()
    kept = load(cache, tmp_path, model="other")
    assert (kept.num_files, len(kept.notes)) == (0, 3)
    assert all("another model" in note for note in kept.notes)
    assert cache.peek(PATH).host == 0


def test_a_pool_of_another_shape_takes_no_file(tmp_path: Path) -> None:
    saved(tmp_path)
    cache = KVCache(SlotPool(8, [(2, 2, 1)], torch.float32, "cpu"))
    assert "width 6" in load(cache, tmp_path).notes[0]


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_truncated_file_is_left_out_with_what_goes_on_from_it(tmp_path: Path, size: int) -> None:
    saved(tmp_path)
    trunk = files_of(tmp_path)[0]
    data = trunk.read_bytes()
    trunk.write_bytes(data[:size] if size >= 0 else data[:-1])
    cache = make_cache()
    kept = load(cache, tmp_path)
    assert (kept.num_files, len(kept.notes)) == (0, 3)
    assert trunk.name in kept.notes[0] and "goes on from" in kept.notes[1]
    cache.check()


def test_changed_ids_are_noticed_when_the_file_is_found(tmp_path: Path) -> None:
    saved(tmp_path)
    branch = files_of(tmp_path)[-2]
    with safe_open(branch, "pt") as file:
        metadata, ids, rows = file.metadata(), file.get_tensor("ids"), file.get_tensor("rows")
    save_file({"ids": ids + 1, "rows": rows}, branch, metadata)
    kept = load(make_cache(), tmp_path)
    assert kept.num_files == 2 and "changed since it was written" in kept.notes[0]


def test_a_file_under_another_files_name_is_left_out(tmp_path: Path) -> None:
    saved(tmp_path)
    files = files_of(tmp_path)
    files[-3].write_bytes(files[-2].read_bytes())
    kept = load(make_cache(), tmp_path)
    assert kept.num_files == 2 and "another path" in kept.notes[0]


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


def test_a_file_that_is_gone_by_the_time_it_is_wanted_is_computed_again(tmp_path: Path) -> None:
    saved(tmp_path)
    cache = make_cache()
    load(cache, tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    lease = cache.lease([*PATH, 1])
    assert (lease.cached_len, cache.tree.num_in_all) == (0, 0)
    assert save(cache, tmp_path).num_files == 0
    cache.check()


def test_nothing_is_found_in_a_directory_that_is_not_there(tmp_path: Path) -> None:
    assert load(make_cache(), tmp_path / "absent") == Kept()


def test_a_write_that_fails_leaves_no_part_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make_cache()
    put(cache, PATH)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        save(cache, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_next_engine_of_a_model_goes_on_from_what_the_last_one_kept(engines, greedy, prompt, tmp_path) -> None:
    ids = array("q", prompt(60))
    engine = engines()
    engine.generate([ids], SamplingParams(max_tokens=1))
    assert engine.save_kv(tmp_path).num_tokens == 60
    following = engines()
    assert following.load_kv(tmp_path).notes == []
    assert following.residency(ids).host == 60
    (reply,) = following.generate([[*ids, 5]], SamplingParams(max_tokens=6))
    assert (reply.usage.restored_tokens, reply.usage.computed_tokens) == (60, 1)
    assert list(reply.token_ids) == greedy("llama", [*ids, 5], 6)
    other = engines("qwen2")
    assert "another model" in other.load_kv(tmp_path).notes[0]
