"""The engine on CUDA: the same greedy tokens as on the CPU, however the prompt's KV came to be."""

from __future__ import annotations

import pytest
import torch

from treechat_engine import Engine, EngineConfig, SamplingParams

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: run `make gpu` where there is one"),
]
GREEDY = SamplingParams(max_tokens=12)


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral-window", "gemma2-softcap-window", "gpt-oss-sinks"])
def test_float32_on_the_device_gives_the_tokens_of_the_cpu(family, models, greedy, prompt):
    config = EngineConfig(device="cuda", dtype="float32", kv_tokens=128, prefill_chunk=16)
    trunk = prompt(30)
    left, right = trunk + prompt(9, seed=1), trunk + prompt(8, seed=2)
    with Engine(models(family), config, poison=True) as engine:
        for ids, num_computed in ((left, 39), (right, 8), (left, 1)):
            (done,) = engine.generate([ids], GREEDY)
            assert list(done.token_ids) == greedy(family, ids, 12)
            assert done.usage.computed_tokens == num_computed
        engine.clear_cache()
        together = engine.generate([left, right], GREEDY)
        assert [list(each.token_ids) for each in together] == [greedy(family, ids, 12) for ids in (left, right)]
        engine.cache.check()


def test_bfloat16_agrees_with_itself_whether_computed_or_reused(models, prompt):
    with Engine(models("llama"), EngineConfig(device="cuda", dtype="bfloat16", kv_tokens=256), poison=True) as engine:
        ids = prompt(60)
        one = SamplingParams(max_tokens=1, top_logprobs=5)
        (computed,) = engine.generate([ids], one)
        (reused,) = engine.generate([ids], one)
        assert reused.usage.cached_tokens > 0
        assert computed.logprobs[0] == pytest.approx(reused.logprobs[0], abs=0.05)


def test_what_went_to_pinned_memory_comes_back_and_replies_are_the_same(models, greedy, prompt, tmp_path):
    config = EngineConfig(device="cuda", dtype="float32", kv_tokens=80, host_tokens=200, prefill_chunk=16)
    with Engine(models("llama"), config, poison=True) as engine:
        assert engine.cache.lower.host.rows.is_pinned()
        engine.cache._pays = None
        first, second = prompt(50), prompt(50, seed=1)
        for ids, restores in ((first, False), (second, False), (first, True), (second, True)):
            (done,) = engine.generate([ids], GREEDY)
            assert list(done.token_ids) == greedy("llama", ids, 12)
            assert (done.usage.restored_tokens > 0) == restores
        kept = engine.save_kv(tmp_path)
        engine.clear_cache()
        assert engine.load_kv(tmp_path).num_tokens == kept.num_tokens
        (done,) = engine.generate([second], GREEDY)
        assert list(done.token_ids) == greedy("llama", second, 12)
        assert done.usage.restored_tokens == 49
