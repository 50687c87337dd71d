"""Norms that run as kernels where a model keeps its transformers forward: which are replaced, and what they compute."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("triton")

from tests.engine.families import SUPPORTED, build
from treechat_engine import Engine, EngineConfig
from treechat_engine.replacements import Replacements
from treechat_kernels import dispatch

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


@pytest.fixture
def kernels(monkeypatch):
    """Triton, under its interpreter."""
    if torch.cuda.is_available():
        pytest.skip("kernels are compiled here, and take no tensors of the CPU")
    monkeypatch.setattr(dispatch, "_forced", lambda: "triton")


def logits(model):
    with torch.inference_mode():
        return model(IDS, use_cache=False).logits


@pytest.mark.parametrize("name", ["mixtral", "glm", "gpt_oss", "gemma3n"])
def test_rms_norms_of_a_refused_family_run_as_kernels_and_give_the_same_logits(name, kernels):
    model = build(SUPPORTED[name])
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=0.5)
    before = logits(model)
    replaced = Replacements(model)
    assert replaced._modules and f"of its {replaced.num_norms} norms run as kernels" in replaced.told
    calls = []
    kernel, dispatch.rms_norm = dispatch.rms_norm, lambda *args, **kw: (calls.append(1), kernel(*args, **kw))[1]
    try:
        torch.testing.assert_close(logits(model), before, atol=2e-5, rtol=2e-5)
    finally:
        dispatch.rms_norm = kernel
    assert len(calls) >= len(replaced._modules)
    replaced.give_back()
    assert torch.equal(logits(model), before) and not replaced._modules
    assert not any("forward" in vars(module) for module in model.modules())


class OddNorm(nn.Module):
    """A norm in name: it does a little more."""

    def __init__(self, more):
        super().__init__()
        self.weight, self.eps, self.more = nn.Parameter(torch.ones(24)), 1e-6, more

    def forward(self, x):
        normed = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight
        return normed * 1.001 if self.more == "scale" else normed.clamp(-2, 2)


@pytest.mark.parametrize("more", ["scale", "clamp"])
def test_a_norm_that_does_more_is_left_alone(more, kernels):
    replaced = Replacements(nn.Sequential(OddNorm(more), nn.LayerNorm(24)))
    assert replaced.num_norms == 2 and not replaced._modules


def test_a_norm_that_somebody_watches_is_left_alone(kernels):
    model = nn.Sequential(nn.RMSNorm(24, eps=1e-6))
    model[0].register_forward_hook(lambda *_: None)
    assert not Replacements(model)._modules


def test_without_kernels_nothing_is_replaced_and_nothing_said():
    replaced = Replacements(build(SUPPORTED["mixtral"]))
    assert replaced.num_norms and not replaced._modules and replaced.told == ""


@pytest.mark.parametrize("deterministic", [False, True])
def test_an_engine_says_so_and_gives_the_norms_back(kernels, deterministic):
    model = build(SUPPORTED["mixtral"])
    config = EngineConfig(kv_tokens=64, self_check=False, deterministic=deterministic)
    with Engine(model, config) as engine:
        assert engine.stats().forward == "transformers"
        assert "norms run as kernels" in engine.stats().forward_reason
    assert not any("forward" in vars(module) for module in model.modules())
