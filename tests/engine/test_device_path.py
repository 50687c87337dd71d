"""The GPU's path through the engine, on the CPU: tables made once per step, kernels by reference and interpreted."""

from __future__ import annotations

import pytest

from treechat_engine import Engine, EngineConfig, SamplingParams
from treechat_engine.device_attention import DeviceContext
from treechat_kernels import dispatch


@pytest.fixture(params=["reference", "triton"])
def kernels(request, monkeypatch):
    """Which kernels the device path runs."""
    if request.param == "triton":
        triton = pytest.importorskip("triton")
        if not triton.knobs.runtime.interpret:
            pytest.skip("the interpreter is off where there is a GPU: run `make gpu`")
    monkeypatch.setattr(dispatch, "_forced", lambda: request.param)
    monkeypatch.setattr(dispatch, "uses_tables", lambda device: True)
    return request.param


@pytest.mark.parametrize("family", ["gemma2-softcap-window", "gpt-oss-sinks"])
def test_the_device_path_gives_the_tokens_of_transformers(family, kernels, models, greedy, prompt, monkeypatch):
    made = []
    build = DeviceContext.__init__
    monkeypatch.setattr(DeviceContext, "__init__", lambda self, *args: (made.append(self), build(self, *args))[1])
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
