"""Decoding and short prompts with graphs, on the CPU: fake graphs repeat captured calls; kernels are interpreted."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from treechat_engine import Engine, EngineConfig, RequestFailedError, SamplingParams
from treechat_engine.graphs import decoding, prompts, sampling
from treechat_engine.graphs.capture import CaptureError
from treechat_engine.sampling.sampler import Sampler, choose
from treechat_kernels import dispatch
from treechat_kernels.layout import SPLIT_LEN

triton = pytest.importorskip("triton")
if not triton.knobs.runtime.interpret:
    pytest.skip("kernels are not interpreted on a machine with a GPU: run `make gpu`", allow_module_level=True)


class Replay:
    """A fake CUDA graph: a replay reads and writes the tensors that it was captured with."""

    def __init__(self, run, result):
        self.run, self.result = run, result

    def replay(self):
        self.result.copy_(self.run())


@pytest.fixture(scope="module")
def started(models):
    """Yield the engines by family."""
    engines = {}
    yield engines
    for engine in engines.values():
        engine.close()


@contextmanager
def kernels(which):
    """Use these kernels inside the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "forced_kernels", lambda: which)
        yield


@pytest.fixture
def replayed(monkeypatch, models, started):
    """Return start(family) -> a cleared engine that decodes with graphs, and the list of steps that ran ahead."""
    ahead = []
    launch_next = decoding.DecodeGraphs.launch_next

    def capture(run, memory):
        result = run()
        return Replay(run, result), result

    def counted(self, last, batch, samplers):
        step = launch_next(self, last, batch, samplers)
        ahead.append(step)
        return step

    for module in (decoding, prompts):
        monkeypatch.setattr(module, "capture", capture)
    monkeypatch.setattr(decoding.DecodeGraphs, "launch_next", counted)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(dispatch, "uses_tables", lambda device: True)
    # Small sizes, since the interpreter also runs the padding.
    monkeypatch.setattr(prompts, "SIZES", (6, 12))

    @contextmanager
    def start(family):
        if family not in started:
            # With reference kernels, since comparing forwards under the interpreter takes longer than the tests.
            with kernels("reference"):
                started[family] = Engine(models(family), EngineConfig(kv_tokens=400, self_check=False), poison=True)
        engine = started[family]
        engine.clear_cache()
        engine.worker.scheduler.end_logits.clear()
        engine.worker.runner.use_graphs(engine.config.max_batch, 400)
        with kernels("triton"):
            yield engine
        engine.cache.check()

    return start, ahead


def test_replies_by_graphs_are_those_of_transformers(replayed, models, greedy, prompt):
    start, ahead = replayed
    trunk = prompt(7)
    left, right = trunk + prompt(5, seed=5), trunk + prompt(4, seed=2)
    with start("llama-few-heads") as engine:
        for ids, num_computed in ((left, 12), (right, 4)):
            (done,) = engine.generate([ids], SamplingParams(max_tokens=5))
            assert list(done.token_ids) == greedy("llama-few-heads", ids, 5)
            assert done.usage.computed_tokens == num_computed
        assert engine.stats().graphs == "1 for decoding, 2 for prompts"
        assert any(ahead)
        # A step run ahead writes slots of a reply that has ended. They are free again and must hold NaN.
        expected = greedy("llama-few-heads", left, 5)
        stop = expected[1]
        assert stop != expected[0]
        together = engine.generate(
            [left, right], [SamplingParams(max_tokens=5, stop_token_ids=(stop,)), SamplingParams(max_tokens=5)]
        )
        assert list(together[0].token_ids) == expected[:2]
        assert list(together[1].token_ids) == greedy("llama-few-heads", right, 5)
        assert engine.stats().graphs == "2 for decoding, 2 for prompts"


def test_siblings_read_their_common_prefix_once(replayed, models, greedy, prompt, monkeypatch):
    start, _ = replayed
    monkeypatch.setenv("TREECHAT_SHARED_PREFIX", "always")
    trunk = prompt(SPLIT_LEN + 5)
    with start("mistral-window") as engine:
        with kernels("reference"):
            engine.generate([trunk], SamplingParams(max_tokens=1))
        prompts = [trunk + prompt(2, seed=seed) for seed in (1, 2)]
        done = engine.generate(prompts, SamplingParams(max_tokens=3))
        assert [list(each.token_ids) for each in done] == [greedy("mistral-window", ids, 3) for ids in prompts]
        assert any(key.shares for key in engine.worker.runner.graphs.captured_graphs)


SAMPLED = [
    SamplingParams(max_tokens=4, temperature=0.9, seed=1),
    SamplingParams(max_tokens=4, temperature=1.2, seed=2, top_k=5, top_p=0.8),
    SamplingParams(max_tokens=4, temperature=0.8, seed=3, top_p=0.9),
    SamplingParams(max_tokens=4, temperature=1.5, seed=4, min_p=0.1),
    SamplingParams(max_tokens=3),
    SamplingParams(
        max_tokens=4,
        temperature=0.8,
        top_p=0.9,
        seed=6,
        repetition_penalty=1.4,
        presence_penalty=0.5,
        frequency_penalty=0.7,
        logit_bias={3: 2.5, 5: float("-inf")},
    ),
    SamplingParams(max_tokens=4, repetition_penalty=2.0, presence_penalty=1.0),
]


PENALIZED = SamplingParams(max_tokens=4, temperature=0.8, top_p=0.9, seed=3, repetition_penalty=1.3, top_logprobs=3)


NAMES = ["temperature", "top-k and top-p", "top-p", "min-p", "greedy", "all penalties", "greedy with penalties"]


@pytest.fixture(scope="module")
def eager(models, prompt):
    """Return the completion of each parameter set without graphs and kernels."""
    with Engine(models("llama-few-heads"), EngineConfig(kv_tokens=400)) as engine:
        params = [*SAMPLED, PENALIZED]
        return dict(zip(map(repr, params), engine.generate([prompt(6)] * len(params), params), strict=True))


@pytest.mark.parametrize("num_likely", [128, 3], ids=["settled in the graph", "settled by the host"])
def test_sampled_replies_run_ahead_with_the_tokens_that_they_have_without_graphs(
    eager, replayed, models, prompt, monkeypatch, num_likely
):
    start, ahead = replayed
    monkeypatch.setattr(sampling, "NUM_LIKELY", num_likely)
    # Only top-k and greedy rows, which are always settled.
    params = SAMPLED if num_likely == 128 else [*SAMPLED[2:4], SAMPLED[5]]
    with start("llama-few-heads") as engine:
        by_graphs = engine.generate([prompt(6)] * len(params), params)
        assert any(key.mode for key in engine.worker.runner.graphs.captured_graphs)
        engine.cache.check()
    for each, ours in zip(params, by_graphs, strict=True):
        assert ours.token_ids == eager[repr(each)].token_ids
        assert ours.logprobs == pytest.approx(eager[repr(each)].logprobs, abs=1e-4)
    assert any(ahead)


@pytest.mark.parametrize("params", SAMPLED, ids=NAMES)
def test_a_graph_chooses_the_samplers_tokens_or_reports_that_it_cannot(params):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(16, 1000, generator=generator)
    logits[8:] *= 0.1  # flat: top-p and min-p keep more tokens than NUM_LIKELY
    samplers = [Sampler(replace(params, seed=seed), [7, 8, 9, 9], 1000) for seed in range(16)]
    mode = sampling.SamplingMode.of(samplers)
    table = sampling.DrawTable(16, 1000, logits.device)
    table.prepare(mode)
    table.fill(samplers, 16, mode)
    best = logits.argmax(dim=-1)
    logprobs = logits.log_softmax(dim=-1)
    best_logprobs = logprobs.gather(1, best[:, None]).squeeze(1)
    # The same logits each time, so penalties change the chosen tokens.
    for _ in range(4):
        ids, chosen_logprobs, settled = table.choose(logits, best, best_logprobs, mode)
        table.fill_ahead(samplers)
        expected = choose(logits, samplers)
        for sampler, token_id in zip(samplers, ids.tolist(), strict=True):
            sampler.record(token_id)
        assert settled[:8].all()
        assert ids[settled].tolist() == expected[settled].tolist()
        torch.testing.assert_close(chosen_logprobs, logprobs.gather(1, ids[:, None]).squeeze(1))
        if params.min_p or (params.top_p < 1 and not params.top_k):
            assert not settled[8:].any()


def test_sampling_that_cannot_be_captured_is_done_outside(eager, replayed, models, prompt, monkeypatch):
    start, ahead = replayed
    captured = decoding.capture

    def refuse(run, memory):
        before = len(drawn)
        done = captured(run, memory)
        if len(drawn) > before:
            raise CaptureError("the step cannot be captured: a sort asks the host")
        return done

    drawn = []
    draw_in_graph = sampling.DrawTable.choose
    monkeypatch.setattr(sampling.DrawTable, "choose", lambda *args: (drawn.append(args), draw_in_graph(*args))[1])
    monkeypatch.setattr(decoding, "capture", refuse)
    with start("llama-few-heads") as engine:
        (by_graphs,) = engine.generate([prompt(6)], SAMPLED[2])
        assert by_graphs.token_ids == eager[repr(SAMPLED[2])].token_ids
        assert "1 for decoding (sampling outside of them: the step cannot" in engine.stats().graphs
    assert not any(ahead)


def test_penalties_and_alternatives_read_the_logits_of_the_graph(eager, replayed, models, prompt):
    start, ahead = replayed
    with start("llama-few-heads") as engine:
        (by_graphs,) = engine.generate([prompt(6)], PENALIZED)
    assert by_graphs.token_ids == eager[repr(PENALIZED)].token_ids
    assert [len(top) for top in by_graphs.top] == [3] * 4
    assert not ahead or not any(ahead)


def test_a_forward_that_cannot_be_captured_runs_without_graphs_and_reports_it(
    replayed, models, greedy, prompt, monkeypatch
):
    start, _ = replayed

    def refuse(run, memory):
        raise CaptureError("the step cannot be captured: it asks the host")

    for module in (decoding, prompts):
        monkeypatch.setattr(module, "capture", refuse)
    with start("llama-few-heads") as engine:
        (done,) = engine.generate([prompt(6)], SamplingParams(max_tokens=3))
        assert list(done.token_ids) == greedy("llama-few-heads", prompt(6), 3)
        assert "it asks the host" in engine.stats().graphs


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("the device is full"), KeyError("boom")], ids=repr)
def test_an_exception_in_a_launch_ends_its_requests_and_no_others(replayed, models, greedy, prompt, error):
    start, _ = replayed
    with start("llama-few-heads") as engine:
        graphs = engine.worker.runner.graphs
        replay, engine.worker.runner.prompt_graphs = graphs.replay, None

        def failing(key, num_rows):
            raise error

        graphs.replay = failing
        with pytest.raises(RequestFailedError, match=type(error).__name__):
            engine.generate([prompt(6)], SamplingParams(max_tokens=3))
        graphs.replay = replay
        (done,) = engine.generate([prompt(6)], SamplingParams(max_tokens=3))
        assert list(done.token_ids) == greedy("llama-few-heads", prompt(6), 3)
        engine.cache.check()
