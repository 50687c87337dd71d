"""Replace parts of a transformers forward by kernels, each only if the kernel computes the same.

The parts are norms, rotary embeddings (`module_rotary.py`) and gated activations. Without CUDA nothing is replaced. A
trial in the model's own dtype, on values of several sizes, shows what a part computes. A norm that does more than a
weighted RMS norm is not replaced, and neither is a clipped gate. Only instances are changed, never a class or the
functions of a file, which other models share.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from treechat_engine.attention.attention import ProbeContext
from treechat_engine.attention.context import use_context
from treechat_engine.model.module_rotary import (
    CALL_ERRORS,
    SCALES,
    TOLERANCES,
    LayoutCache,
    Rotary,
    is_same,
    with_kernel_rotary,
)
from treechat_kernels import dispatch

_Forward = Callable[..., Any]
# Names of the linear layers before a gated activation, and of the one after it.
_GATED = (
    (("gate_proj", "up_proj"), "down_proj"),
    (("gate_up_proj",), "down_proj"),
    (("input_linear",), "output_linear"),
    (("Wi",), "Wo"),
)
_ACTIVATIONS = ("silu", "gelu", "gelu_tanh")
_KINDS = NORMS, ROTARY, GATES = ("norms", "rotary embeddings", "gated activations")


class Replacements:
    """The replaced modules of a model. `give_back` restores their own forwards."""

    def __init__(self, model: nn.Module) -> None:
        """Replace what kernels can compute. Runs a forward of two tokens if there are rotary embeddings to try."""
        self._modules: list[nn.Module] = []
        self.found: Counter[str] = Counter()
        self.replaced: Counter[str] = Counter()
        layouts: LayoutCache = {}
        attentions: list[tuple[nn.Module, list[Rotary]]] = []
        for module in model.modules():
            if "norm" in type(module).__name__.lower() and not any(module.children()):
                self._replace(NORMS, module, _kernel_norm(module))
            elif (gated := _Gated.read(module)) is not None:
                self._replace(GATES, module, _kernel_gate(gated))
            elif (rotated := with_kernel_rotary(module, layouts)) is not None:
                forward, rotaries = rotated
                self._replace(ROTARY, module, forward if _has_kernels(module) else None)
                if _has_kernels(module):
                    attentions.append((module, rotaries))
        if attentions:
            self._give_back_unsupported_rotary(model, attentions)

    @property
    def summary(self) -> str:
        """The suffix of `EngineStats.forward_reason`; empty if nothing was replaced."""
        if not self._modules:
            return ""
        kinds = [f"{self.replaced[kind]} of {self.found[kind]} {kind}" for kind in _KINDS if self.found[kind]]
        return f"; kernels run {', '.join(kinds)}"

    def give_back(self) -> None:
        for module in self._modules:
            del module.forward
        self._modules.clear()
        self.replaced.clear()

    def _replace(self, kind: str, module: nn.Module, forward: _Forward | None) -> None:
        self.found[kind] += 1
        if forward is not None:
            # An attribute of the instance hides the method of its class.
            module.forward = forward
            self._modules.append(module)
            self.replaced[kind] += 1

    def _give_back_unsupported_rotary(self, model: nn.Module, attentions: list[tuple[nn.Module, list[Rotary]]]) -> None:
        """Restore the modules that call a rotary function which the kernel cannot compute."""
        ids = torch.arange(2, device=next(model.parameters()).device)[None]
        try:
            with use_context(ProbeContext()), torch.inference_mode():
                model(input_ids=ids, position_ids=ids, use_cache=False)
        except BaseException:
            self.give_back()
            raise
        for module, rotaries in attentions:
            for rotary in rotaries:
                rotary.is_learning = False
            if all(rotary.is_replaced for rotary in rotaries):
                continue
            del module.forward
            self._modules.remove(module)
            self.replaced[ROTARY] -= 1
            if not any(rotary.is_called for rotary in rotaries):
                self.found[ROTARY] -= 1


def _has_kernels(module: nn.Module) -> bool:
    weight = next(module.parameters(), None)
    return weight is not None and dispatch.uses_triton(weight)


def _kernel_norm(module: nn.Module) -> _Forward | None:
    """Return a forward by our kernel that computes the same as the norm; None if there is none."""
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", None) or getattr(module, "eps", None)
    if not isinstance(weight, torch.Tensor) or weight.dim() != 1 or not isinstance(eps, float):
        return None
    if getattr(module, "bias", None) is not None or weight.dtype not in TOLERANCES:
        return None
    if not dispatch.uses_triton(weight) or "forward" in vars(module) or module._forward_hooks:
        return None
    for plus_one in (False, True):

        def forward(x: torch.Tensor, plus_one: bool = plus_one) -> torch.Tensor:
            flat = x.reshape(-1, x.shape[-1])
            return dispatch.rms_norm(flat, weight, eps, plus_one=plus_one)[0].view(x.shape)

        if _is_same_norm(module, forward, weight):
            return forward
    return None


@torch.inference_mode()
def _is_same_norm(module: nn.Module, forward: _Forward, weight: torch.Tensor) -> bool:
    generator = torch.Generator().manual_seed(0)
    for scale in SCALES:
        x = (torch.randn(3, weight.shape[0], generator=generator) * scale).to(weight)
        try:
            expected = module(x)
        except CALL_ERRORS:
            return False
        # The results of a norm have the same size for inputs of any size.
        if not is_same(forward(x), expected, 1.0):
            return False
    return True


class _Gated(NamedTuple):
    """A gated MLP.

    module: the MLP.
    first_names: names of its linear layers before the activation; one if they are joined.
    last_name: name of its last linear layer.
    """

    module: nn.Module
    first_names: tuple[str, ...]
    last_name: str

    @classmethod
    def read(cls, module: nn.Module) -> _Gated | None:
        children = dict(module.named_children())
        for first_names, last_name in _GATED:
            if children.keys() >= {*first_names, last_name}:
                return cls(module, first_names, last_name)
        return None

    @property
    def has_hooks(self) -> bool:
        """Whether hooks or an instance's own forward would be bypassed by the replacement."""
        inner = [
            child for name, child in self.module.named_children() if name not in (*self.first_names, self.last_name)
        ]
        has_hook = any(child._forward_hooks or child._forward_pre_hooks for each in inner for child in each.modules())
        return "forward" in vars(self.module) or has_hook

    def forward(self, activation: str) -> _Forward:
        module = self.module

        def run(x: torch.Tensor) -> torch.Tensor:
            rows = [getattr(module, name)(x) for name in self.first_names]
            flat = [each.reshape(-1, each.shape[-1]) for each in rows]
            gate, up = flat if len(flat) == 2 else flat[0].chunk(2, dim=-1)
            out = dispatch.gate_mul(gate, up, activation)
            result: torch.Tensor = getattr(module, self.last_name)(out.view(*rows[0].shape[:-1], -1))
            return result

        return run


def _kernel_gate(gated: _Gated) -> _Forward | None:
    """Return a forward of the gated MLP with our kernel between its linears; None if it computes something else."""
    weight = next(gated.module.parameters(), None)
    if weight is None or weight.dtype not in TOLERANCES or not dispatch.uses_triton(weight) or gated.has_hooks:
        return None
    for activation in _ACTIVATIONS:
        # In float32 the two kinds of gelu are distinguishable.
        if all(_is_same_gate(gated, activation, dtype, weight.device) for dtype in (torch.float32, weight.dtype)):
            return gated.forward(activation)
    return None


@torch.inference_mode()
def _is_same_gate(gated: _Gated, activation: str, dtype: torch.dtype, device: torch.device) -> bool:
    """Try the module with linear layers of fixed output, so that its weights do not hide the activation."""
    generator = torch.Generator().manual_seed(0)
    width = getattr(getattr(gated.module, gated.first_names[0]), "out_features", 64) // (3 - len(gated.first_names))
    x = torch.randn(1, 3, 8, generator=generator).to(device, dtype)
    for scale in SCALES:
        gate, up = (torch.randn(2, 1, 3, width, generator=generator) * scale).to(device, dtype)
        values = [gate, up] if len(gated.first_names) == 2 else [torch.cat([gate, up], dim=-1)]
        fixed = [_FixedOutput(value) for value in values]
        stand_in = copy.copy(gated.module)
        stand_in._modules = (
            gated.module._modules | dict(zip(gated.first_names, fixed, strict=True)) | {gated.last_name: _Identity()}
        )
        try:
            expected = type(stand_in).forward(stand_in, x)
        except CALL_ERRORS:
            return False
        if not all(len(each.inputs) == 1 and torch.equal(each.inputs[0], x) for each in fixed):
            return False
        got = dispatch.gate_mul(gate[0], up[0], activation).unsqueeze(0)
        if not is_same(got, expected, scale):
            return False
    return True


class _FixedOutput(nn.Module):
    """Return a fixed value, and record the inputs."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value
        self.inputs: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.inputs.append(x)
        return self.value


class _Identity(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x
