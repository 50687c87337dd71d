"""The engine on CUDA: the same greedy tokens as on the CPU, however the prompt's KV was made."""

from __future__ import annotations

import pytest
import torch

from treechat_engine import Engine, EngineConfig, SamplingParams

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="needs a CUDA device: run `make gpu` on a machine with one"
    ),
]
GREEDY = SamplingParams(max_tokens=12)


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral-window", "gemma2-softcap-window", "gpt-oss-sinks"])
def test_float32_on_the_device_gives_the_tokens_of_the_cpu(family, models, greedy, prompt):
    config = EngineConfig(device="cuda", dtype="float32", kv_tokens=128, prefill_chunk=16)
    trunk = prompt(30)
    left, right = trunk + prompt(9, seed=1), trunk + prompt(8, seed=2)
    with Engine(models(family), config, poison=True) as engine:
        for ids, num_computed in ((left, 39), (right, 8), (left, 0)):
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


def test_kv_in_pinned_memory_is_restored_and_replies_are_the_same(models, greedy, prompt, tmp_path):
    config = EngineConfig(device="cuda", dtype="float32", kv_tokens=80, host_tokens=200, prefill_chunk=16)
    with Engine(models("llama"), config, poison=True) as engine:
        assert engine.cache.lower_tiers.host.rows.is_pinned()
        engine.cache.should_restore = None
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


@pytest.mark.parametrize("forward", ["fused", "transformers"])
@pytest.mark.parametrize("family", ["llama", "mistral-window"])
def test_graphs_and_eager_steps_choose_the_same_tokens(family, forward, models, greedy, prompt):
    prompts = [prompt(n, seed=n) for n in (30, 17, 45)]
    expected = [greedy(family, ids, 40) for ids in prompts]
    for graphs in (True, False):
        config = EngineConfig(device="cuda", dtype="float32", kv_tokens=400, forward=forward, cuda_graphs=graphs)
        with Engine(models(family), config, poison=True) as engine:
            done = engine.generate(prompts, SamplingParams(max_tokens=40))
            assert [list(each.token_ids) for each in done] == expected
            (again,) = engine.generate([[*prompts[0], *expected[0][:20]]], SamplingParams(max_tokens=20))
            assert list(again.token_ids) == expected[0][20:]
            assert again.usage.computed_tokens == 1
            # Graphs for one row and for three: three prompts ran in one step, and the one token after them is decoding.
            assert engine.stats().graphs.startswith("2 for decoding") if graphs else engine.stats().graphs == ""
            engine.cache.check()


def test_graphs_follow_paths_over_many_splits_and_many_extents(models, greedy, prompt):
    config = EngineConfig(device="cuda", dtype="float32", kv_tokens=900, prefill_chunk=64)
    trunk = prompt(240)
    with Engine(models("llama"), config, poison=True) as engine:
        for seed in range(4):
            ids = trunk[: 60 * seed + 60] + prompt(9, seed=seed)
            (done,) = engine.generate([ids], SamplingParams(max_tokens=30))
            assert list(done.token_ids) == greedy("llama", ids, 30)
        ids = trunk + prompt(3, seed=9)
        (done,) = engine.generate([ids], SamplingParams(max_tokens=20))
        assert list(done.token_ids) == greedy("llama", ids, 20)
        assert engine.stats().graphs == "3 for decoding, 4 for prompts"


def test_siblings_in_a_graph_read_their_prefix_once(models, greedy, prompt, monkeypatch):
    from treechat_engine.graphs.decoding import DecodeGraphs

    monkeypatch.setenv("TREECHAT_SHARED_PREFIX", "always")
    keys = []
    launch = DecodeGraphs.replay
    monkeypatch.setattr(DecodeGraphs, "replay", lambda self, key, n: (keys.append(key), launch(self, key, n))[1])
    trunk = prompt(300)
    config = EngineConfig(device="cuda", dtype="float32", kv_tokens=900)
    with Engine(models("llama"), config, poison=True) as engine:
        prompts = [trunk + prompt(4, seed=seed) for seed in (1, 2, 3)]
        done = engine.generate(prompts, SamplingParams(max_tokens=20))
        assert [list(each.token_ids) for each in done] == [greedy("llama", ids, 20) for ids in prompts]
    assert any(key.shares and key.batch == 4 for key in keys)


def test_a_reply_that_ends_while_the_next_step_runs_does_not_change_the_others(models, greedy, prompt):
    first, second = prompt(20, seed=1), prompt(25, seed=2)
    expected = greedy("llama", first, 24)
    stop = next(each for i, each in enumerate(expected) if i > 5 and each not in expected[:i])
    config = EngineConfig(device="cuda", dtype="float32", kv_tokens=200)
    with Engine(models("llama"), config, poison=True) as engine:
        ends, continued = engine.generate(
            [first, second], [SamplingParams(max_tokens=24, stop_token_ids=(stop,)), SamplingParams(max_tokens=24)]
        )
        assert list(ends.token_ids) == expected[: expected.index(stop) + 1]
        assert ends.finish_reason == "stop"
        assert list(continued.token_ids) == greedy("llama", second, 24)
        engine.cache.check()


def test_sampled_replies_are_the_same_by_graphs_and_eagerly(models, prompt):
    ways = [
        {"temperature": 0.9, "top_p": 0.9},
        {"temperature": 0.9},
        {"temperature": 1.2, "top_k": 9, "min_p": 0.02},
        {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.2, "frequency_penalty": 0.4},
        {"presence_penalty": 1.5, "logit_bias": {3: 2.0}},
    ]
    params = [SamplingParams(max_tokens=20, seed=n, **way) for n, way in enumerate(ways)]
    replies = []
    for graphs in (True, False):
        config = EngineConfig(device="cuda", dtype="float32", kv_tokens=300, cuda_graphs=graphs)
        with Engine(models("llama"), config) as engine:
            # Each also alone, so its graph has no row of another kind.
            replies.append([each.token_ids for each in engine.generate([prompt(20)] * len(params), params)])
            replies[-1] += [engine.generate([prompt(20)], each)[0].token_ids for each in params]
            if graphs:
                assert engine.worker.runner.graphs.sampling_problem is None
                assert {key.mode for key in engine.worker.runner.graphs.captured_graphs} >= {1, 2}
    assert replies[0] == replies[1]


@pytest.mark.parametrize("forward", ["fused", "transformers"])
def test_a_deterministic_reply_has_the_same_bits_among_others(models, prompt, forward):
    params = SamplingParams(max_tokens=30, temperature=0.9, top_p=0.95, seed=5, top_logprobs=3)
    config = EngineConfig(
        device="cuda", dtype="bfloat16", kv_tokens=900, prefill_chunk=64, forward=forward, deterministic=True
    )
    ids = prompt(150)
    with Engine(models("llama"), config) as engine:
        (alone,) = engine.generate([ids], params)
        engine.clear_cache()
        others = [prompt(40 + n, seed=n + 1) for n in range(5)]
        among = engine.generate([*others[:3], ids, *others[3:]], [SamplingParams(max_tokens=40)] * 3 + [params] * 3)[3]
    assert (among.token_ids, among.logprobs, among.top) == (alone.token_ids, alone.logprobs, alone.top)


def test_a_step_that_cannot_be_captured_runs_eagerly_and_reports_it(models, greedy, prompt):
    model = models("llama")
    act = model.model.layers[0].mlp.act_fn.forward
    model.model.layers[0].mlp.act_fn.forward = lambda x: act(x) if x.sum().item() else x
    config = EngineConfig(device="cuda", dtype="float32", kv_tokens=200, forward="transformers")
    with Engine(model, config) as engine:
        ids = prompt(20)
        (done,) = engine.generate([ids], GREEDY)
        assert list(done.token_ids) == greedy("llama", ids, 12)
        assert "cannot be captured" in engine.stats().graphs


def test_out_of_device_memory_in_a_step_ends_no_request(models, greedy, prompt, monkeypatch):
    config = EngineConfig(device="cuda", dtype="float32", kv_tokens=200, cuda_graphs=False)
    with Engine(models("llama"), config, poison=True) as engine:
        runner, step = engine.worker.runner, engine.worker.runner.step
        hoard = []

        def greedy_step(batch):
            if not hoard:
                hoard.append(torch.empty(1 << 50, dtype=torch.uint8, device="cuda"))
            return step(batch)

        def once(batch):
            try:
                return greedy_step(batch)
            finally:
                hoard.append(None)

        monkeypatch.setattr(runner, "step", once)
        ids = prompt(20)
        (done,) = engine.generate([ids], GREEDY)
        assert list(done.token_ids) == greedy("llama", ids, 12)
        assert hoard
