"""The launches that `tuning` measures for a model's shapes: attention, linear layers of one row, and a chain of both.

Each case walks over the stretches of a large pool, so caches are cold, as in a model of many layers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from treechat_kernels.blocks import block_dim
from treechat_kernels.decode_attention import decode_paths, merge_key, split_key
from treechat_kernels.extend_attention import extend_key, extend_paths
from treechat_kernels.layout import Layout
from treechat_kernels.linear import linear_key, linear_row
from treechat_kernels.prefix_sharing import SharingTimes, Siblings
from treechat_kernels.shared_prefix_attention import shared_paths
from treechat_kernels.tiles import LAUNCH, TileKey
from treechat_kernels.write_kv import rotate_and_write

# Tokens of the path that tiles are measured on, and new tokens of a prompt.
CONTEXT, NEW = 8192, 512
# More bytes than a device's cache holds, in at most this many stretches.
COLD_BYTES, MAX_STRETCHES = 160_000_000, 16
# Numbers of siblings and prefix lengths that the rates of sharing are fitted to, and the tokens kept for the siblings'
# own ends.
NUM_SIBLINGS, PREFIXES, SPARE = (2, 8, 16), (2048, 7168), 1024


class Case(NamedTuple):
    """A launch that uses the tile of `key`, as the engine does, and returns its result."""

    key: TileKey
    run: Callable[[], torch.Tensor]


# Returns the seconds that a call takes on the device.
Timer = Callable[[Callable[[], object]], float]


class AttentionShape(NamedTuple):
    num_q_heads: int
    num_kv_heads: int
    dim: int
    v_dim: int


class LinearShape(NamedTuple):
    """A linear layer of one row.

    out_len: rows of the weight, both halves if it is gated.
    in_len: columns of the weight.
    is_gated: whether a gate of an MLP follows.
    """

    out_len: int
    in_len: int
    is_gated: bool


class Scale(NamedTuple):
    """The size of the cases; smaller in tests.

    context: tokens of a path.
    num_new: new tokens of a prompt.
    cold_bytes: more than a cache holds.
    prefixes: prefix lengths for the rates of sharing.
    num_siblings: numbers of siblings for them.
    spare: tokens of `context` for the siblings' own ends.
    """

    context: int = CONTEXT
    num_new: int = NEW
    cold_bytes: int = COLD_BYTES
    prefixes: Sequence[int] = PREFIXES
    num_siblings: Sequence[int] = NUM_SIBLINGS
    spare: int = SPARE

    @property
    def longest_prefix(self) -> int:
        return self.context - self.spare


class AttentionCases:
    """Random pools of one shape on the device, and the cases over them."""

    def __init__(self, shape: AttentionShape, dtype: torch.dtype, device: torch.device, scale: Scale) -> None:
        self._shape, self._dtype, self._device, self._scale = shape, dtype, device, scale
        self._token_bytes = shape.num_kv_heads * (shape.dim + shape.v_dim) * dtype.itemsize
        self._length = scale.context + scale.num_new
        num = -(-scale.cold_bytes // (self._length * self._token_bytes))
        self._num_stretches = max(1, min(MAX_STRETCHES, num))
        self._num_slots = self._num_stretches * self._length
        self._k_pool = self._random(self._num_slots, shape.num_kv_heads, shape.dim)
        self._v_pool = self._random(self._num_slots, shape.num_kv_heads, shape.v_dim)

    def cases(self) -> Iterator[Case]:
        shape = self._shape
        group, padded = shape.num_q_heads // shape.num_kv_heads, block_dim(max(shape.dim, shape.v_dim))
        own_key = split_key(group, padded, self._dtype)
        yield Case(own_key, self.decoding())
        yield Case(merge_key(shape.v_dim), self.decoding())
        yield Case(extend_key(padded, self._dtype), self._extending())
        for rows in (16, 32, 64):
            key = split_key(rows, padded, self._dtype)
            if rows > own_key.sizes[2]:
                yield Case(key, self._both(max(2, rows // group), self._scale.longest_prefix)[1])

    def decoding(self) -> Callable[[], torch.Tensor]:
        """Return the decoding of one path, on each stretch in turn."""
        q = self._random(1, self._shape.num_q_heads, self._shape.dim)
        layout = Layout.build([self._scale.context], [1], self._device)
        stretches = self._stretches(self._scale.context)
        return lambda: torch.cat([self._decode(q, slots, layout) for slots in stretches])

    def _extending(self) -> Callable[[], torch.Tensor]:
        q = self._random(self._scale.num_new, self._shape.num_q_heads, self._shape.dim)
        layout = Layout.build([self._length], [len(q)], self._device)
        slots = self._stretches(self._length)[0]

        def run() -> torch.Tensor:
            out = self._out(q)
            extend_paths(out, q, self._k_pool, self._v_pool, slots, layout, layout.several, scaling=self._scaling)
            return out

        return run

    def _both(self, num: int, prefix_len: int) -> tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor]]:
        """Return the decoding of siblings both ways: separately, and with their prefix read once."""
        own = self._scale.spare // num
        q = self._random(num, self._shape.num_q_heads, self._shape.dim)
        lens = [prefix_len + own] * num
        layout = Layout.build(lens, [1] * num, self._device, [(list(range(num)), prefix_len)])
        stretches = []
        for slots in self._stretches(prefix_len + num * own):
            ends = slots[prefix_len:].view(num, own)
            stretches.append(torch.cat([slots[:prefix_len].expand(num, -1), ends], dim=1).flatten())

        def once(slots: torch.Tensor) -> torch.Tensor:
            out = self._out(q)
            shared_paths(out, q, self._k_pool, self._v_pool, slots, layout, layout.shared[0], scaling=self._scaling)
            return out

        return (
            lambda: torch.cat([self._decode(q, slots, layout) for slots in stretches]),
            lambda: torch.cat([once(slots) for slots in stretches]),
        )

    def sharing(self, seconds: Timer) -> list[SharingTimes]:
        """Measure siblings both ways, for all numbers and prefix lengths."""
        found = []
        for num, prefix_len in itertools.product(self._scale.num_siblings, self._scale.prefixes):
            siblings = Siblings(num, prefix_len, self._shape.num_q_heads, self._token_bytes)
            plain_s, shared_s = (seconds(way) / self._num_stretches for way in self._both(num, prefix_len))
            found.append(SharingTimes(siblings, plain_s, shared_s))
        return found

    def chain(self, linears: Sequence[Callable[[torch.Tensor], torch.Tensor]]) -> Case:
        """Return the kernels of a step in sequence, once per stretch."""
        shape = self._shape
        qk = self._random(1, shape.num_q_heads + shape.num_kv_heads, shape.dim)
        v = self._random(1, shape.num_kv_heads, shape.v_dim)
        cos, sin = self._random(2, 1, shape.dim)
        layout = Layout.build([self._scale.context], [1], self._device)
        stretches = self._stretches(self._scale.context)

        def run() -> torch.Tensor:
            outs = []
            for slots in stretches:
                q = (
                    rotate_and_write(self._k_pool, self._v_pool, qk, v, cos, sin, slots[-1:])
                    if shape.dim == shape.v_dim
                    else qk
                )
                outs.append(self._decode(q[:, : shape.num_q_heads], slots, layout).flatten())
                x = outs[-1][None]
                outs += [linear(x).flatten() for linear in linears]
            return torch.cat(outs)

        return Case(LAUNCH, run)

    @property
    def _scaling(self) -> float:
        return float(self._shape.dim**-0.5)

    def _decode(self, q: torch.Tensor, slots: torch.Tensor, layout: Layout) -> torch.Tensor:
        out = self._out(q)
        decode_paths(out, q, self._k_pool, self._v_pool, slots, layout, layout.single, scaling=self._scaling)
        return out

    def _out(self, q: torch.Tensor) -> torch.Tensor:
        return q.new_empty(*q.shape[:2], self._shape.v_dim)

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=self._dtype, device=self._device)

    def _stretches(self, length: int) -> list[torch.Tensor]:
        """Return the slots of each stretch in random order, like those of a path that grew between others."""
        starts = range(0, self._num_slots, self._length)
        return [torch.randperm(length, device=self._device) + start for start in starts]


class LinearCases:
    """Random weights of one shape on the device, more than a cache holds."""

    def __init__(self, shape: LinearShape, dtype: torch.dtype, device: torch.device, scale: Scale) -> None:
        self._shape = shape
        num_bytes = shape.out_len * shape.in_len * dtype.itemsize
        num = max(1, min(MAX_STRETCHES, -(-scale.cold_bytes // num_bytes)))
        self._weights = torch.randn(num, shape.out_len, shape.in_len, dtype=dtype, device=device)
        self._weights *= shape.in_len**-0.5
        self._x = torch.randn(1, shape.in_len, dtype=dtype, device=device)
        self._turns = itertools.cycle(self._weights)

    def case(self) -> Case:
        key = linear_key(self._shape.in_len, self._shape.is_gated)
        return Case(key, lambda: torch.cat([self._row(self._x, weight) for weight in self._weights]))

    def turn(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the next weight to x, which is repeated or cut to the layer's length."""
        x = x.repeat(1, -(-self._shape.in_len // x.shape[1]))[:, : self._shape.in_len]
        return self._row(x, next(self._turns))

    def _row(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return linear_row(x, weight, gate="silu" if self._shape.is_gated else None)
