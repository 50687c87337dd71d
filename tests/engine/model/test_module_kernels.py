"""Kernels in models that keep their transformers forward: which modules they replace, and that results agree."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

pytest.importorskip("triton")

from transformers.models.deepseek_v3 import modeling_deepseek_v3
from transformers.models.gemma3n import modeling_gemma3n
from transformers.models.gpt_neox import modeling_gpt_neox
from transformers.models.helium import modeling_helium
from transformers.models.llama import modeling_llama
from transformers.models.mixtral import modeling_mixtral

from tests.engine.families import SUPPORTED, build
from tests.engine.model.test_decoder import FUSED
from treechat_engine import Engine, EngineConfig
from treechat_engine.model.module_kernels import GATES, NORMS, ROTARY, Replacements
from treechat_engine.model.module_rotary import Rotary, with_kernel_rotary
from treechat_kernels import dispatch

IDS = torch.tensor([[3, 1, 4, 1, 5]])
# (replaced, existing) norms, rotary embeddings and gated activations.
REPLACED = {
    "mixtral": ((5, 5), (2, 2), (0, 0)),
    "glm": ((5, 5), (2, 2), (2, 2)),
    "gpt_oss": ((5, 5), (2, 2), (0, 0)),
    "cohere": ((0, 7), (2, 2), (2, 2)),
    "deepseek_v3": ((9, 9), (0, 2), (2, 2)),
    "bitnet": ((9, 9), (2, 2), (0, 2)),
}


@pytest.fixture
def kernels(monkeypatch):
    """Use Triton under its interpreter. Return the names of the kernels that ran."""
    if torch.cuda.is_available():
        pytest.skip("kernels are compiled here, and take no tensors of the CPU")
    monkeypatch.setattr(dispatch, "forced_kernels", lambda: "triton")
    ran = []
    for name in ("rms_norm", "rotary", "gate_mul"):
        kernel = getattr(dispatch, name)
        monkeypatch.setattr(
            dispatch, name, lambda *args, _k=kernel, _n=name, **kw: (ran.append(_n), _k(*args, **kw))[1]
        )
    return ran


@torch.inference_mode()
def logits(model, ids=IDS):
    return model(ids, use_cache=False).logits


def overridden(model):
    return [module for module in model.modules() if "forward" in vars(module)]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in REPLACED else pytest.mark.slow) for name in SUPPORTED if name not in FUSED],
)
def test_parts_that_run_as_kernels_give_the_same_tokens(name, kernels):
    model = build(SUPPORTED[name])
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=0.5)
    before = logits(model)
    replaced = Replacements(model)
    kernels.clear()
    after = logits(model)
    torch.testing.assert_close(after, before, atol=5e-5, rtol=5e-5)
    assert after.argmax(-1).tolist() == before.argmax(-1).tolist()
    counts = tuple((replaced.replaced[kind], replaced.found[kind]) for kind in (NORMS, ROTARY, GATES))
    assert counts == REPLACED.get(name, counts)
    for kernel, (num, _) in zip(("rms_norm", "rotary", "gate_mul"), counts, strict=True):
        assert kernels.count(kernel) >= num
    assert len(overridden(model)) == sum(replaced.replaced.values())
    replaced.give_back()
    assert torch.equal(logits(model), before) and not overridden(model)


def test_in_16_bits_the_same_parts_are_replaced(kernels):
    model = build(SUPPORTED["glm"]).to(torch.bfloat16)
    before = logits(model)
    replaced = Replacements(model)
    assert replaced.summary == "; kernels run 5 of 5 norms, 2 of 2 rotary embeddings, 2 of 2 gated activations"
    difference = (logits(model) - before).float().norm() / before.float().norm()
    assert 0 < difference < 0.02


def test_another_model_of_the_same_family_keeps_its_modules(kernels):
    model, other = build(SUPPORTED["mixtral"]), build(SUPPORTED["mixtral"])
    function = modeling_mixtral.apply_rotary_pos_emb
    replaced = Replacements(model)
    assert replaced.replaced[ROTARY] == 2
    assert modeling_mixtral.apply_rotary_pos_emb is function and not overridden(other)
    kernels.clear()
    logits(other)
    assert not kernels
    replaced.give_back()
    logits(model)
    assert not kernels


class OddNorm(nn.Module):
    """A module named like a norm that computes something more."""

    def __init__(self, more):
        super().__init__()
        self.weight, self.eps, self.more = nn.Parameter(torch.ones(24)), 1e-6, more

    def forward(self, x):
        normed = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight
        return normed * 1.001 if self.more == "scale" else normed.clamp(-2, 2)


@pytest.mark.parametrize("more", ["scale", "clamp"])
def test_a_norm_that_computes_more_is_not_replaced(more, kernels):
    replaced = Replacements(nn.Sequential(OddNorm(more), nn.LayerNorm(24)))
    assert replaced.found[NORMS] == 2 and not replaced.replaced and replaced.summary == ""


def test_a_norm_with_a_hook_is_not_replaced(kernels):
    model = nn.Sequential(nn.RMSNorm(24, eps=1e-6))
    model[0].register_forward_hook(lambda *_: None)
    assert not Replacements(model).replaced


class OddGate(nn.Module):
    """A module named like a gated MLP; `way` is how it differs."""

    def __init__(self, way):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)
        self.act, self.way = nn.SiLU(), way

    def forward(self, x):
        gate, up = self.gate_proj(x * 1.001 if self.way == "scaled" else x), self.up_proj(x)
        if self.way == "clipped":
            gate = gate.clamp(max=7)
        if self.way == "swapped":
            gate, up = up, gate
        opened = nn.functional.relu(gate) if self.way == "another activation" else self.act(gate)
        out = self.down_proj(opened * (up + 1 if self.way == "one plus" else up))
        return out * 0.5 if self.way == "halved" else out


@pytest.mark.parametrize("way", ["clipped", "swapped", "another activation", "one plus", "scaled", "halved"])
def test_a_gate_that_computes_something_else_is_not_replaced(way, kernels):
    # The weights are small, so the module's values never reach the clipping limit.
    replaced = Replacements(nn.Sequential(OddGate(way)))
    assert replaced.found[GATES] == 1 and not replaced.replaced
    assert Replacements(nn.Sequential(OddGate("plain"))).replaced[GATES] == 1


def test_a_gate_whose_activation_has_a_hook_is_not_replaced(kernels):
    model = nn.Sequential(OddGate("plain"))
    model[0].act.register_forward_hook(lambda *_: None)
    assert not Replacements(model).replaced


def pairs(head_dim, width):
    q, k = torch.randn(1, 4, 3, head_dim), torch.randn(1, 2, 3, head_dim)
    return q, k, *torch.rand(2, 1, 3, width)


def odd(q, k, cos, sin, unsqueeze_dim=1):
    """Return the usual rotation with the keys scaled."""
    q, k = modeling_llama.apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim)
    return q, k * 1.001


def one_by_one(q, k, cos, sin, unsqueeze_dim=1):
    return tuple(modeling_gemma3n.apply_rotary_pos_emb(x, cos, sin, unsqueeze_dim) for x in (q, k))


@pytest.mark.parametrize(
    ("function", "is_replaced"),
    [
        (modeling_llama.apply_rotary_pos_emb, True),
        (modeling_helium.apply_rotary_pos_emb, True),
        (modeling_gpt_neox.apply_rotary_pos_emb, True),
        (one_by_one, True),
        (odd, False),
        (modeling_deepseek_v3.apply_rotary_pos_emb_interleave, False),
    ],
    ids=["halves", "neighbours", "part", "one by one", "more", "neighbours to halves"],
)
def test_a_rotary_function_is_replaced_only_if_the_kernel_computes_the_same(function, is_replaced, kernels):
    rotary, args = Rotary(function, {}), pairs(16, 8 if function is modeling_gpt_neox.apply_rotary_pos_emb else 16)
    expected = function(*args)
    rotary(*args)
    rotary.is_learning = False
    assert rotary.is_replaced == is_replaced
    kernels.clear()
    torch.testing.assert_close(rotary(*args), expected)
    assert kernels == ["rotary"] * (2 if is_replaced else 0)


def test_a_rotary_function_of_one_tensor_with_heads_after_tokens(kernels):
    rotary, (q, _, cos, sin) = Rotary(modeling_gemma3n.apply_rotary_pos_emb, {}), pairs(16, 16)
    q = q.transpose(1, 2)
    expected = modeling_gemma3n.apply_rotary_pos_emb(q, cos, sin, unsqueeze_dim=2)
    torch.testing.assert_close(rotary(q, cos, sin, unsqueeze_dim=2), expected)
    assert rotary.is_replaced


def test_calls_that_were_not_compared_use_the_original_function(kernels):
    rotary = Rotary(modeling_llama.apply_rotary_pos_emb, {})
    rotary(*pairs(16, 16))
    rotary.is_learning = False
    kernels.clear()
    batch = [torch.cat([each, each]) for each in pairs(16, 16)]
    others = (pairs(8, 8), batch, [each.double() for each in pairs(16, 16)])
    for args in others:
        for got, expected in zip(rotary(*args), modeling_llama.apply_rotary_pos_emb(*args), strict=True):
            assert torch.equal(got, expected)
    assert not kernels


@pytest.mark.parametrize("is_told", [True, False])
def test_a_wrapped_forward_is_found_if_the_wrapper_names_it(monkeypatch, is_told):
    def wrapped(forward):
        def run(self, *args, **kwargs):
            return forward(self, *args, **kwargs)

        return functools.wraps(forward)(run) if is_told else run

    attention = modeling_llama.LlamaAttention
    monkeypatch.setattr(attention, "forward", wrapped(wrapped(attention.forward)))
    model = build(SUPPORTED["llama"])
    before = logits(model)
    found = with_kernel_rotary(model.model.layers[0].self_attn, {})
    assert (found is not None) == is_told
    if found is not None:
        model.model.layers[0].self_attn.forward, (rotary,) = found
        assert torch.equal(logits(model), before) and rotary.is_called


def test_without_kernels_nothing_is_replaced_or_reported():
    model = build(SUPPORTED["glm"])
    replaced = Replacements(model)
    assert dict(replaced.found) == {NORMS: 5, ROTARY: 2, GATES: 2}
    assert not overridden(model) and replaced.summary == ""


@pytest.mark.parametrize("deterministic", [False, True])
def test_an_engine_reports_replaced_modules_and_restores_them(kernels, deterministic):
    model = build(SUPPORTED["mixtral"])
    config = EngineConfig(kv_tokens=64, self_check=False, deterministic=deterministic)
    with Engine(model, config) as engine:
        assert engine.stats().forward == "transformers"
        assert engine.stats().forward_reason.endswith("; kernels run 5 of 5 norms, 2 of 2 rotary embeddings")
    assert not overridden(model)


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_an_engine_that_does_not_start_restores_the_model(name, kernels, monkeypatch):
    def fails(*_args):
        raise RuntimeError("no device")

    monkeypatch.setattr("treechat_engine.engine.tune_device", fails)
    model = build(SUPPORTED[name])
    before = {key: parameter.clone() for key, parameter in model.named_parameters()}
    implementation = model.config._attn_implementation
    with pytest.raises(RuntimeError, match="no device"):
        Engine(model, EngineConfig(kv_tokens=64, self_check=False))
    assert not overridden(model) and model.config._attn_implementation == implementation
    for key, parameter in model.named_parameters():
        assert torch.equal(parameter, before[key]), f"{key} was not given back"
