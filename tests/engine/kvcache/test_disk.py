"""KV on disk: the next process with the same model finds it."""

from __future__ import annotations

from array import array
from pathlib import Path

from tests.engine.kvcache.saved_caches import PATH, load, make_cache, put, save, saved
from treechat_engine import SamplingParams
from treechat_engine.kvcache.saved_kv import SavedKV


def test_saved_prefixes_are_found_and_read_correctly_when_needed(tmp_path: Path) -> None:
    saved(tmp_path)
    cache = make_cache()
    loaded = load(cache, tmp_path)
    assert (loaded.num_tokens, loaded.num_files, loaded.notes) == (17, 3, [])
    assert (cache.peek([*PATH, 1, 2]).host, cache.num_cached) == (14, 0)
    lease = cache.lease([*PATH, 3, 4, 5, 6])
    assert (lease.cached_len, lease.restored_len, cache.num_cached) == (15, 15, 15)
    assert cache.pool.k[0][lease.slots.tolist(), 0, 1].tolist() == [*PATH, 3, 4, 5]
    assert cache.pool.v[0][lease.slots.tolist()].flatten().tolist() == [-i for i in [*PATH, 3, 4, 5]]
    cache.check()
    cache.release(lease)
    cache.clear()
    assert cache.peek([*PATH, 1, 2]).total == cache.peek([*PATH, 1, 2]).cold


def test_a_prefix_that_ends_inside_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    saved(tmp_path)
    cache = make_cache()
    load(cache, tmp_path)
    lease = cache.lease([*PATH[:5], 77, 78])
    assert lease.restored_len == 5
    assert cache.pool.k[0][lease.slots.tolist(), 0, 0].tolist() == PATH[:5]
    cache.check()


def test_long_segments_are_cut_and_the_budget_goes_to_their_beginnings(tmp_path: Path) -> None:
    cache, ids = make_cache(2000), list(range(1500))
    put(cache, ids)
    saved_kv = save(cache, tmp_path, budget_bytes=1100 * 12)
    assert (saved_kv.num_tokens, saved_kv.num_bytes, saved_kv.num_files) == (1100, 1100 * 12, 3)
    other = make_cache(2000)
    load(other, tmp_path)
    assert other.peek(ids).host == 1100
    assert other.lease(ids).restored_len == 1100
    other.check()


def test_the_protected_path_is_saved_before_others(tmp_path: Path) -> None:
    cache = make_cache()
    put(cache, [1, 2, 3, 4])
    put(cache, [5, 6, 7, 8])
    cache.protect([[1, 2, 3, 4]])
    assert save(cache, tmp_path, budget_bytes=4 * 12).num_tokens == 4
    other = make_cache()
    load(other, tmp_path)
    assert (other.peek([1, 2, 3, 4]).host, other.peek([5, 6, 7, 8]).host) == (4, 0)


def test_saving_again_writes_only_new_segments_and_removes_old_ones(tmp_path: Path) -> None:
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


def test_nothing_is_found_in_a_missing_directory(tmp_path: Path) -> None:
    assert load(make_cache(), tmp_path / "absent") == SavedKV()


def test_the_next_engine_of_a_model_uses_the_kv_that_the_last_one_saved(engines, greedy, prompt, tmp_path) -> None:
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
