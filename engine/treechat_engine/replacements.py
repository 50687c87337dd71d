"""Norms of a model that keeps its transformers forward, run by a kernel: each only where it computes the same.

Elsewhere than on CUDA nothing is replaced. What a norm computes is told by trying it, in the model's own dtype, on
values of several sizes: a module that does more than a weighted RMS norm stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from treechat_kernels import dispatch

# Of a value, and where values are small: roundings of the dtype that two right answers may lie apart.
_TOLERANCES = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
_SCALES = (1e-3, 1.0, 50.0)


class Replacements:
    """The replaced modules of a model, which have their own forward again after `give_back`."""

    def __init__(self, model: Any) -> None:
        self._modules: list[nn.Module] = []
        self.num_norms = 0
        for module in model.modules():
            if "norm" not in type(module).__name__.lower() or any(module.children()):
                continue
            self.num_norms += 1
            forward = _kernel_of(module)
            if forward is not None:
                # An attribute of the instance goes before the method of its class.
                module.forward = forward
                self._modules.append(module)

    @property
    def told(self) -> str:
        """What `EngineStats.forward_reason` adds; empty where nothing was replaced."""
        return f"; {len(self._modules)} of its {self.num_norms} norms run as kernels" if self._modules else ""

    def give_back(self) -> None:
        for module in self._modules:
            del module.forward
        self._modules.clear()


def _kernel_of(module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """A forward by our kernel that computes what the module does, None where there is none."""
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", None) or getattr(module, "eps", None)
    if not isinstance(weight, torch.Tensor) or weight.dim() != 1 or not isinstance(eps, float):
        return None
    if getattr(module, "bias", None) is not None or weight.dtype not in _TOLERANCES:
        return None
    if not dispatch.uses_triton(weight) or "forward" in vars(module) or module._forward_hooks:
        return None
    for plus_one in (False, True):

        def forward(x: torch.Tensor, plus_one: bool = plus_one) -> torch.Tensor:
            flat = x.reshape(-1, x.shape[-1])
            return dispatch.rms_norm(flat, weight, eps, plus_one=plus_one)[0].view(x.shape)

        if _computes_the_same(module, forward, weight):
            return forward
    return None


@torch.inference_mode()
def _computes_the_same(
    module: nn.Module, forward: Callable[[torch.Tensor], torch.Tensor], weight: torch.Tensor
) -> bool:
    generator = torch.Generator().manual_seed(0)
    tolerance = _TOLERANCES[weight.dtype]
    for scale in _SCALES:
        x = (torch.randn(3, weight.shape[0], generator=generator) * scale).to(weight)
        try:
            expected = module(x)
        except (RuntimeError, TypeError, ValueError):
            return False
        if not isinstance(expected, torch.Tensor) or expected.shape != x.shape or expected.dtype != x.dtype:
            return False
        if not torch.allclose(forward(x).float(), expected.float(), rtol=tolerance, atol=tolerance):
            return False
    return True
