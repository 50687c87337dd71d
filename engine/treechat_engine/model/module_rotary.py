"""The rotary embedding of a transformers attention module by a kernel, if the kernel computes the same.

Attention modules call a function of their file, which all models of that family share. The function is not changed: a
module gets a copy of its forward in which that name refers to another function. A trial on random tables shows what the
function computes: whether it pairs neighbours, and whether it reads half of its tables.
"""

from __future__ import annotations

import inspect
import itertools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from treechat_kernels import dispatch

# Exceptions of a transformers function for tensors of an unexpected shape.
CALL_ERRORS = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError)
# Relative to a value, or for small values to the scale: the rounding difference between two correct results.
TOLERANCES = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
SCALES = (1e-3, 1.0, 50.0)
# Heads and tokens of a trial.
_HEADS, _TOKENS = 2, 3


class _Shape(NamedTuple):
    """The properties of a call that determine its computation.

    num: tensors to rotate.
    dim: dimensions of a head.
    width: dimensions of the tables.
    head_dim: the dimension of the heads, 1 in x [1, H, T, D].
    dtype: of the rotated tensors.
    table_dtype: of cos and sin.
    """

    num: int
    dim: int
    width: int
    head_dim: int
    dtype: torch.dtype
    table_dtype: torch.dtype


class _Layout(NamedTuple):
    """A way to call `dispatch.rotary`.

    interleaved: whether neighbours are pairs.
    table: "whole" or "half", as `dispatch.rotary` takes it.
    is_sliced: whether only the first half of the tables is read.
    """

    interleaved: bool
    table: str
    is_sliced: bool

    def width(self, shape: _Shape) -> int:
        return shape.width * 2 if self.table == "half" and not self.is_sliced else shape.width


_LAYOUTS = [
    _Layout(interleaved, *table)
    for interleaved, table in itertools.product((False, True), (("whole", False), ("half", True), ("half", False)))
]
_Rotate = Callable[..., Any]
# The layout per function and shape; None if no layout fits.
LayoutCache = dict[tuple[_Rotate, _Shape], _Layout | None]


class Rotary:
    """A module's rotary function: by the kernel for the shapes that have a layout, else by the original."""

    def __init__(self, original: _Rotate, layouts: LayoutCache) -> None:
        self._original = original
        self._layouts = layouts
        self._seen: set[_Shape | None] = set()
        default = inspect.signature(original).parameters.get("unsqueeze_dim")
        self._head_dim = default.default if default is not None else None
        self.is_learning = True

    @property
    def is_called(self) -> bool:
        return bool(self._seen)

    @property
    def is_replaced(self) -> bool:
        """Whether the kernel computes all calls so far."""
        return self.is_called and all(self._layout(shape) is not None for shape in self._seen)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        shape = self._shape(args, kwargs)
        if self.is_learning:
            self._seen.add(shape)
            if shape is not None and (self._original, shape) not in self._layouts:
                self._layouts[self._original, shape] = _find_layout(self._original, shape, args[0].device)
        layout = self._layout(shape)
        if shape is None or layout is None:
            return self._original(*args, **kwargs)
        return _rotate_by_kernel(args, shape, layout)

    def _layout(self, shape: _Shape | None) -> _Layout | None:
        return None if shape is None else self._layouts.get((self._original, shape))

    def _shape(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Shape | None:
        """Return the call's shape; None if the arguments are not (x, cos, sin) or (q, k, cos, sin) of one sequence."""
        head_dim = kwargs.get("unsqueeze_dim", self._head_dim)
        if kwargs.keys() - {"unsqueeze_dim"} or head_dim not in (1, 2) or len(args) not in (3, 4):
            return None
        if not all(isinstance(arg, torch.Tensor) and arg.shape[:1] == (1,) for arg in args):
            return None
        *states, cos, sin = args
        x = states[0]
        if cos.dim() != 3 or cos.shape != sin.shape or any(each.dim() != 4 for each in states):
            return None
        if any((each.shape[3], each.dtype) != (x.shape[3], x.dtype) for each in states) or cos.dtype != sin.dtype:
            return None
        return _Shape(len(states), x.shape[3], cos.shape[2], head_dim, x.dtype, cos.dtype)


def with_kernel_rotary(module: nn.Module, layouts: LayoutCache) -> tuple[Callable[..., Any], list[Rotary]] | None:
    """Return the module's forward with our rotary functions, and these functions; None if it calls none.

    A module that has its own instance forward is left unchanged.
    """
    forward = type(module).forward
    if not isinstance(forward, types.FunctionType) or "forward" in vars(module):
        return None
    inner = inspect.unwrap(forward)
    found = {name: inner.__globals__.get(name) for name in inner.__code__.co_names if "rotary" in name}
    rotaries = {name: Rotary(each, layouts) for name, each in found.items() if isinstance(each, types.FunctionType)}
    own = _copy(forward, rotaries) if rotaries else None
    return None if own is None else (types.MethodType(own, module), list(rotaries.values()))


def _copy(function: Any, replaced: Mapping[str, _Rotate]) -> types.FunctionType | None:
    """Return the function with other globals, inside copies of its wrappers; None for an unknown kind of wrapper."""
    inner, closure = getattr(function, "__wrapped__", None), function.__closure__
    if inner is not None:
        own = _copy(inner, replaced)
        holds = [_holds(cell, inner) for cell in closure or ()]
        if own is None or holds.count(True) != 1:
            return None
        closure = tuple(
            types.CellType(own) if is_inner else cell for is_inner, cell in zip(holds, closure, strict=True)
        )
    names = function.__globals__ | replaced if inner is None else function.__globals__
    copy = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, closure)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _holds(cell: types.CellType, value: Any) -> bool:
    try:
        return cell.cell_contents is value
    except ValueError:  # an empty cell
        return False


def is_same(got: Any, expected: Any, scale: float) -> bool:
    """Return whether two tensors of values of this scale are equal up to the rounding of their dtype."""
    if not isinstance(expected, torch.Tensor) or expected.shape != got.shape or expected.dtype != got.dtype:
        return False
    tolerance = TOLERANCES[got.dtype]
    return torch.allclose(got.float(), expected.float(), rtol=tolerance, atol=2 * tolerance * scale)


def _rotate_by_kernel(args: Sequence[torch.Tensor], shape: _Shape, layout: _Layout) -> Any:
    *states, cos, sin = args
    if layout.is_sliced:
        cos, sin = cos[..., : shape.width // 2], sin[..., : shape.width // 2]
    outs = []
    for x in states:
        rows = x[0].transpose(0, 1) if shape.head_dim == 1 else x[0]
        out = dispatch.rotary(rows, cos[0], sin[0], interleaved=layout.interleaved, table=layout.table)
        outs.append((out.transpose(0, 1) if shape.head_dim == 1 else out).unsqueeze(0))
    return tuple(outs) if shape.num == 2 else outs[0]


@torch.inference_mode()
def _find_layout(original: _Rotate, shape: _Shape, device: torch.device) -> _Layout | None:
    """Return the kernel's layout for the function at this shape. Tries float32 first, which distinguishes more."""
    if not {shape.dtype, shape.table_dtype} <= TOLERANCES.keys() or shape.width % 2:
        return None
    in_float32 = shape._replace(dtype=torch.float32, table_dtype=torch.float32)
    for layout in _LAYOUTS:
        width = layout.width(shape)
        if width % 2 or width > shape.dim:
            continue
        if all(_is_layout(original, each, layout, device) for each in (in_float32, shape)):
            return layout
    return None


def _is_layout(original: _Rotate, shape: _Shape, layout: _Layout, device: torch.device) -> bool:
    generator = torch.Generator().manual_seed(0)
    place = (_HEADS, _TOKENS) if shape.head_dim == 1 else (_TOKENS, _HEADS)
    for scale in SCALES:
        states = [torch.randn(1, *place, shape.dim, generator=generator) * scale for _ in range(shape.num)]
        tables = [torch.rand(1, _TOKENS, shape.width, generator=generator) * 2 - 1 for _ in range(2)]
        args = [each.to(device, shape.dtype) for each in states]
        args += [each.to(device, shape.table_dtype) for each in tables]
        try:
            expected = original(*args, unsqueeze_dim=shape.head_dim)
        except CALL_ERRORS:
            return False
        got = _rotate_by_kernel(args, shape, layout)
        if shape.num == 1:
            got, expected = (got,), (expected,)
        if not isinstance(expected, tuple) or len(expected) != shape.num:
            return False
        if not all(is_same(ours, theirs, scale) for ours, theirs in zip(got, expected, strict=True)):
            return False
    return True
