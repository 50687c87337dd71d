"""Forms of a linear layer's weights: plain, packed by oneDNN, and smaller ones for decoding.

Milliseconds of all linears of the default model once (540 MB in float32), torch 2.13 CPU, 2 threads, best of seven:

    rows                  1     2     5     8    16    32   128   512 (without the head)
    F.linear, float32    36    65    60    62   102   164   373   936
    packed, float32      28    31    33    40    56    95   279   808
    float16            13.5    20    51    82
    int8               12.7    18    29    39

Packed is never slower, so it replaces the plain weights. The smaller forms are additional copies, only for steps of few
rows.

`EngineConfig.decode_weights` stays "float32" by default. "float16" and "int8" made 2.0 and 2.1 times the tokens of
`generate` in `python -m tests.bench.swarm` (see `engine.py`). But tokens then depend on the other requests of the step,
and a branch that is generated again may differ, which this engine promises to exclude.
"""

from __future__ import annotations

from typing import Protocol

import torch

from treechat_kernels import dispatch

# Most rows of a step for which a smaller form was faster than packed float32.
MAX_HALF_ROWS = 2
MAX_INT8_ROWS = 6


class Linear(Protocol):
    """A linear layer. x [T, in] -> [T, out]."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...

    def add(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """residual [T, out] + the layer's result."""
        ...


def can_pack(weight: torch.Tensor) -> bool:
    """Return whether oneDNN can pack this weight: float32 on a CPU, and a torch that has the operators."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch._C._has_mkldnn
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


class PlainLinear:
    """x [T, in] -> [T, out] by F.linear, or for one row on CUDA by our own kernel."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight = weight
        self.bias = bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.takes_row(x):
            return dispatch.linear_row(x, self.weight, self.bias)
        return torch.nn.functional.linear(x, self.weight, self.bias)

    def add(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        if self.takes_row(x):
            return dispatch.linear_row(x, self.weight, self.bias, residual=residual)
        if self.bias is None and x.is_cuda:
            return torch.addmm(residual, x, self.weight.t())
        return residual + self(x)

    def row(self, x: torch.Tensor, norm: tuple[torch.Tensor | None, float] | None, gate: str | None) -> torch.Tensor:
        """`dispatch.linear_row` of a row x [1, in], with the norm before it and the gate after it."""
        return dispatch.linear_row(x, self.weight, self.bias, norm=norm, gate=gate)

    def takes_row(self, x: torch.Tensor) -> bool:
        """Return whether x is a single row, for which there is a kernel."""
        return x.shape[0] == 1 and dispatch.uses_triton(x)

    def dense(self) -> torch.Tensor:
        """Return the weight [out, in] as it was given."""
        return self.weight


class PackedLinear:
    """x [T, in] -> [T, out], with the weight in oneDNN's fastest layout."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self.bias = bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return out

    def add(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")
        return out

    def dense(self) -> torch.Tensor:
        """Return the weight [out, in], bit for bit as it was given, in new memory."""
        return self.weight.to_dense()


class HalfLinear:
    """x [T, in] -> [T, out] with weights and activations in float16. The result has the dtype of x."""

    max_rows = MAX_HALF_ROWS

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight = weight.to(torch.float16)
        self.bias = bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.nn.functional.linear(x.to(torch.float16), self.weight).to(x.dtype)
        return out if self.bias is None else out + self.bias


class Int8Linear:
    """x [T, in] -> [T, out] with int8 weights, one scale per output, and bfloat16 activations."""

    max_rows = MAX_INT8_ROWS

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        scale = (weight.abs().amax(dim=1) / 127).clamp_min(1e-12)
        self.weight = (weight / scale.unsqueeze(1)).round_().to(torch.int8)
        self.scale = scale.to(torch.bfloat16)
        self.bias = bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        out = torch._weight_int8pack_mm(x.to(torch.bfloat16), self.weight, self.scale).to(x.dtype)
        return out if self.bias is None else out + self.bias


class TwoLinear:
    """A smaller form for steps of few rows, the exact one for all others."""

    def __init__(self, exact: Linear, small: HalfLinear | Int8Linear) -> None:
        self.exact = exact
        self.small = small

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.small(x) if x.shape[0] <= self.small.max_rows else self.exact(x)

    def add(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return residual + self.small(x) if x.shape[0] <= self.small.max_rows else self.exact.add(x, residual)


ExactLinear = PlainLinear | PackedLinear
_SMALL_FORMS: dict[str, type[HalfLinear] | type[Int8Linear]] = {"float16": HalfLinear, "int8": Int8Linear}


def with_small(linear: Linear, form: str) -> Linear:
    """Return the layer with a smaller copy of its weights, "float16" or "int8"."""
    assert isinstance(linear, ExactLinear), f"{type(linear).__name__} has a smaller form already"
    return TwoLinear(linear, _SMALL_FORMS[form](linear.dense(), linear.bias))
