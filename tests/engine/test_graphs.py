"""Decoding and short prompts by graphs, on the CPU: a graph here runs again what it captured, kernels interpreted."""

from __future__ import annotations

import pytest
import torch

from treechat_engine import Engine, EngineConfig, RequestFailedError, SamplingParams, graphs, prompt_graphs
from treechat_engine.graph_capture import CaptureError
from treechat_kernels import dispatch, shared_prefix_attention
from treechat_kernels.layout import SPLIT_LEN

triton = pytest.importorskip("triton")
if not triton.knobs.runtime.interpret:
    pytest.skip("the interpreter is off where there is a GPU: run `make gpu`", allow_module_level=True)


class Replay:
    """Stands for a CUDA graph: what it launches reads and writes the tensors that it was captured with."""

    def __init__(self, run, result):
        self.run, self.result = run, result

    def replay(self):
        self.result.copy_(self.run())


@pytest.fixture
def replayed(monkeypatch):
    """The calls that went on ahead, and an engine(model, **config) that decodes by graphs."""
    ahead = []
    go_on = graphs.DecodeGraphs.go_on

    def capture(run, memory):
        result = run()
        return Replay(run, result), result

    def counted(self, last, batch):
        step = go_on(self, last, batch)
        ahead.append(step)
        return step

    for module in (graphs, prompt_graphs):
        monkeypatch.setattr(module, "capture", capture)
    monkeypatch.setattr(graphs.DecodeGraphs, "go_on", counted)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(dispatch, "_forced", lambda: "triton")
    monkeypatch.setattr(dispatch, "uses_tables", lambda device: True)

    def start(model, **config):
        engine = Engine(model, EngineConfig(**{"kv_tokens": 400} | config), poison=True)
        engine._worker._runner.use_graphs(engine.config.max_batch, 400)
        return engine

    return start, ahead


def test_replies_by_graphs_are_those_of_transformers(replayed, models, greedy, prompt):
    start, ahead = replayed
    trunk = prompt(20)
    left, right = trunk + prompt(7, seed=1), trunk + prompt(5, seed=2)
    with start(models("llama")) as engine:
        for ids, num_computed in ((left, 27), (right, 5)):
            (done,) = engine.generate([ids], SamplingParams(max_tokens=5))
            assert list(done.token_ids) == greedy("llama", ids, 5)
            assert done.usage.computed_tokens == num_computed
        assert engine.stats().graphs == "1 for decoding, 2 for prompts"
        assert any(ahead)
        # Slots that a step ahead wrote for a reply that had ended are free again, and free slots hold NaN.
        expected = greedy("llama", left, 5)
        stop = expected[1]
        assert stop != expected[0]
        together = engine.generate(
            [left, right], [SamplingParams(max_tokens=5, stop_token_ids=(stop,)), SamplingParams(max_tokens=5)]
        )
        assert list(together[0].token_ids) == expected[:2]
        assert list(together[1].token_ids) == greedy("llama", right, 5)
        assert engine.stats().graphs == "2 for decoding, 2 for prompts"
        engine.cache.check()


def test_siblings_read_what_all_of_them_share_once(replayed, models, greedy, prompt, monkeypatch):
    start, _ = replayed
    monkeypatch.setattr(shared_prefix_attention, "MIN_SAVED_BYTES", 1)
    trunk = prompt(SPLIT_LEN + 5)
    with start(models("mistral-window")) as engine:
        prompts = [trunk + prompt(2, seed=seed) for seed in (1, 2)]
        done = engine.generate(prompts, SamplingParams(max_tokens=3))
        assert [list(each.token_ids) for each in done] == [greedy("mistral-window", ids, 3) for ids in prompts]
        assert any(key.shares for key in engine._worker._runner.graphs._captured)


def test_sampled_replies_and_penalties_read_the_logits_of_the_graph(replayed, models, prompt):
    start, ahead = replayed
    params = SamplingParams(max_tokens=6, temperature=0.8, top_p=0.9, seed=3, repetition_penalty=1.3, top_logprobs=3)
    with start(models("llama")) as engine, Engine(models("llama"), EngineConfig(kv_tokens=400)) as plain:
        ((by_graphs,), (eager,)) = (each.generate([prompt(20)], params) for each in (engine, plain))
    assert by_graphs.token_ids == eager.token_ids
    assert not ahead or not any(ahead)


def test_a_forward_that_cannot_be_captured_runs_without_and_says_so(replayed, models, greedy, prompt, monkeypatch):
    start, _ = replayed

    def refuse(run, memory):
        raise CaptureError("the step cannot be captured: it asks the host")

    for module in (graphs, prompt_graphs):
        monkeypatch.setattr(module, "capture", refuse)
    with start(models("llama")) as engine:
        (done,) = engine.generate([prompt(12)], SamplingParams(max_tokens=3))
        assert list(done.token_ids) == greedy("llama", prompt(12), 3)
        assert "it asks the host" in engine.stats().graphs


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("the device is full"), KeyError("boom")], ids=repr)
def test_what_raises_while_a_step_is_launched_ends_its_requests_and_no_others(replayed, models, greedy, prompt, error):
    start, _ = replayed
    with start(models("llama")) as engine:
        decoding = engine._worker._runner.graphs
        replay, engine._worker._runner.prompt_graphs = decoding._replay, None

        def failing(key, num_rows):
            raise error

        decoding._replay = failing
        with pytest.raises(RequestFailedError, match=type(error).__name__):
            engine.generate([prompt(12)], SamplingParams(max_tokens=3))
        decoding._replay = replay
        (done,) = engine.generate([prompt(12)], SamplingParams(max_tokens=3))
        assert list(done.token_ids) == greedy("llama", prompt(12), 3)
        engine.cache.check()
