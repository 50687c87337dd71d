"""The GPU's code path of the engine, on the CPU: tables made once per step, with reference or interpreted kernels."""

from __future__ import annotations

from dataclasses import replace

import pytest

from treechat_engine import Engine, EngineConfig, SamplingParams
from treechat_engine.attention.device_attention import TableContext
from treechat_kernels import dispatch


@pytest.fixture(params=["reference", "triton"])
def kernels(request, monkeypatch):
    """Run the device path with these kernels, and return which they are."""
    if request.param == "triton":
        triton = pytest.importorskip("triton")
        if not triton.knobs.runtime.interpret:
            pytest.skip("kernels are not interpreted on a machine with a GPU: run `make gpu`")
    monkeypatch.setattr(dispatch, "forced_kernels", lambda: request.param)
    monkeypatch.setattr(dispatch, "uses_tables", lambda device: True)
    return request.param


@pytest.mark.parametrize("family", ["gemma2-few-heads", "gpt-oss-few-heads"])
def test_the_device_path_gives_the_tokens_of_transformers(family, kernels, models, greedy, prompt, monkeypatch):
    made = []
    build = TableContext.__init__
    monkeypatch.setattr(TableContext, "__init__", lambda self, *args: (made.append(self), build(self, *args))[1])
    trunk = prompt(20)
    left, right = trunk + prompt(7, seed=1), trunk + prompt(5, seed=2)
    left_on, right_on = [*left, 5, 6, 7], [*right, 8]
    with Engine(models(family), EngineConfig(kv_tokens=128, prefill_chunk=16), poison=True) as engine:
        for ids, num_computed in ((left, 27), (right, 5)):
            (done,) = engine.generate([ids], SamplingParams(max_tokens=3))
            assert list(done.token_ids) == greedy(family, ids, 3)
            assert done.usage.computed_tokens == num_computed
        together = engine.generate([left_on, right_on], SamplingParams(max_tokens=3))
        assert [list(each.token_ids) for each in together] == [greedy(family, ids, 3) for ids in (left_on, right_on)]
        engine.cache.check()
    assert made


def test_a_deterministic_engine_keeps_the_fixed_tiles_next_to_a_tuned_one(models, prompt, monkeypatch):
    triton = pytest.importorskip("triton")
    if not triton.knobs.runtime.interpret:
        pytest.skip("kernels are not interpreted on a machine with a GPU: run `make gpu`")
    from treechat_engine import engine
    from treechat_engine.startup import device_tuning
    from treechat_kernels import decode_attention
    from treechat_kernels.decode_attention import FIXED_MERGE, merge_key
    from treechat_kernels.tiles import Tile, chosen_tile

    monkeypatch.setattr(dispatch, "forced_kernels", lambda: "triton")
    monkeypatch.setattr(dispatch, "uses_tables", lambda device: True)
    assert engine.tune_device is device_tuning.tune_device
    tuned = {merge_key(16): Tile(64, 16, 4)}
    monkeypatch.setattr(engine, "tune_device", lambda runner, _shapes: setattr(runner, "tiles", tuned))
    used, launch = [], decode_attention.merge_splits

    def merge(*args):
        used.append(chosen_tile(merge_key(16), FIXED_MERGE))
        launch(*args)

    monkeypatch.setattr(decode_attention, "merge_splits", merge)
    config = EngineConfig(kv_tokens=32, self_check=False, forward="transformers")
    replies = []
    with (
        Engine(models("llama-few-heads"), config) as tuned_one,
        Engine(models("llama-few-heads"), replace(config, deterministic=True)) as deterministic,
    ):
        for each, expected in (
            (tuned_one, *tuned.values()),
            (deterministic, FIXED_MERGE),
            (tuned_one, *tuned.values()),
        ):
            each.clear_cache()
            used.clear()
            replies += each.generate([prompt(3)], SamplingParams(max_tokens=2))
            assert set(used) == {expected}
    assert len({reply.token_ids for reply in replies}) == 1
