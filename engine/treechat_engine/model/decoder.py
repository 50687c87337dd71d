"""The fused forward: the standard decoder over a transformers model's own weights, in few operations per layer.

The weights of qkv and of gate and up are joined, norms and rotary embeddings are single operations, linears are packed
for the device, and the last linear of a branch also adds the residual. On the CPU this saves Python and small
operations, about 15 ms per step of the default model. The decoder holds the weights instead of the model. Until
`give_back`, the model's linears are views of the joined weights, or empty if those are packed.
"""

from __future__ import annotations

import torch
from torch import nn

from treechat_engine.attention.context import ForwardContext
from treechat_engine.attention.device_attention import TableContext
from treechat_engine.model.decoder_parts import DecoderParts, LayerParts, Norm, NotStandardError
from treechat_engine.model.linears import ExactLinear, Linear, PackedLinear, PlainLinear, can_pack, with_small
from treechat_kernels import dispatch

# Positions whose cos and sin are computed at a time.
_ROTARY_STEP = 2048


class FusedDecoder:
    """Logits of packed tokens. Built from a model's parts, whose weights it takes over.

    If it raises NotStandardError, it has taken none.
    """

    def __init__(self, parts: DecoderParts) -> None:
        self._parts = parts
        self._packed: list[tuple[list[nn.Linear], PackedLinear]] = []
        self._check()
        with torch.no_grad():
            self._layers = [_Layer(layer, self) for layer in parts.layers]
            self._exact_head = self.take([parts.head], keep_originals=True)
            self._head: Linear = self._exact_head
        kinds = {layer.rotary for layer in parts.layers if layer.rotary is not None}
        self._rotary = {kind: RotaryTable(parts.rotary, kind if parts.rotary_takes_type else None) for kind in kinds}

    def __call__(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        max_len: int,
        index: torch.Tensor | None,
        context: ForwardContext,
    ) -> torch.Tensor:
        """ids, positions [T] -> logits [rows, vocabulary] of the tokens in `index`.

        ids: [T], the packed tokens.
        positions: [T], their positions.
        max_len: more than the largest position.
        index: the tokens whose logits are returned; None: all.
        context: the slots of the forward.
        """
        parts = self._parts
        x: torch.Tensor = parts.embed(ids)
        if parts.embed_scale != 1.0:
            x = x * parts.embed_scale
        rotary = {kind: table.at(positions, max_len, x) for kind, table in self._rotary.items()}
        for i, layer in enumerate(self._layers):
            x = layer(i, x, rotary, context)
        if index is not None:
            x = x.index_select(0, index)
        # The end of a prompt has one row, like a decoding step, but must not use the smaller weights.
        head = self._head if index is None else self._exact_head
        logits = head(parts.norm(x))
        if parts.logits_scale != 1.0:
            logits = logits * parts.logits_scale
        if parts.logits_cap is not None:
            logits = torch.tanh(logits / parts.logits_cap) * parts.logits_cap
        return logits

    def take(self, linears: list[nn.Linear], keep_originals: bool = False) -> ExactLinear:
        """Return one linear layer of the joined weights.

        linears: the layers to join, in order.
        keep_originals: keep the original weights, because another module reads them too.
        """
        weights = [linear.weight for linear in linears]
        weight = weights[0].data if len(weights) == 1 else torch.cat([each.data for each in weights])
        biases = [linear.bias.data for linear in linears if linear.bias is not None]
        bias = torch.cat(biases) if biases else None
        if not can_pack(weight):
            for each, part in zip(weights, torch.split(weight, [each.shape[0] for each in weights]), strict=True):
                each.data = part
            return PlainLinear(weight, bias)
        packed = PackedLinear(weight, bias)
        if not keep_originals:
            for each in weights:
                each.data = each.data.new_empty(0)
            self._packed.append((linears, packed))
        return packed

    def row_shapes(self) -> list[tuple[int, int, bool]]:
        """Return (rows of the weight, length of a row, whether gated) of each linear that has a kernel for one row."""
        return [shape for layer in self._layers for shape in layer.row_shapes()]

    def reserve(self, max_len: int) -> None:
        """Make tables for positions below max_len now, so that their addresses do not change."""
        like = self._parts.norm.weight if self._parts.norm.weight is not None else self._parts.head.weight[0]
        for table in self._rotary.values():
            table.reserve(max_len, like[None])

    def add_small(self, form: str) -> None:
        """Add a smaller copy of the weights, "float16" or "int8", for steps of few rows. No longer exact."""
        with torch.no_grad():
            for layer in self._layers:
                layer.add_small(form)
            self._head = with_small(self._head, form)

    def give_back(self) -> None:
        """Return the weights to the model, bit for bit. Call it once, as the last call."""
        for linears, packed in self._packed:
            parts = torch.split(packed.dense(), [linear.out_features for linear in linears])
            for linear, part in zip(linears, parts, strict=True):
                linear.weight.data = part.clone() if len(parts) > 1 else part
        self._packed.clear()

    def _check(self) -> None:
        seen: set[int] = set()
        for layer in self._parts.layers:
            for joined in (layer.qkv, [layer.out], layer.gate_up, [layer.down]):
                if len({linear.bias is None for linear in joined}) > 1:
                    raise NotStandardError("some of the joined linear layers have a bias and some have none")
                seen.update(id(linear.weight) for linear in joined)
        if len(seen) < sum(len(layer.qkv) + len(layer.gate_up) + 2 for layer in self._parts.layers):
            raise NotStandardError("layers share their weights")


class RotaryTable:
    """cos and sin of the model's own rotary embedding, once per position, with the rotation's sign folded into sin."""

    def __init__(self, module: nn.Module, kind: str | None) -> None:
        self._module = module
        self._args = () if kind is None else (kind,)
        self._table: torch.Tensor | None = None
        self._fixed_table: torch.Tensor | None = None

    def at(self, positions: torch.Tensor, max_len: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cos and sin, [T, 1, R] each, of positions below max_len."""
        picked = self.table_for(max_len, like).index_select(0, positions)
        return picked[:, 0:1], picked[:, 1:2]

    def reserve(self, max_len: int, like: torch.Tensor) -> None:
        """From now on keep a table of at least max_len positions, in the dtype and on the device of like [T, N].

        Graphs read it by address: a longer table, for a longer path, does not replace it.
        """
        self._fixed_table = self.table_for(max_len, like)

    def table_for(self, max_len: int, like: torch.Tensor) -> torch.Tensor:
        """Return a table [positions, 2, R] of at least max_len positions."""
        if self._fixed_table is not None and max_len <= self._fixed_table.shape[0]:
            return self._fixed_table
        if self._table is None or self._table.shape[0] < max_len:
            self._table = self._compute(-(-max_len // _ROTARY_STEP) * _ROTARY_STEP, like)
        return self._table

    def _compute(self, length: int, like: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(length, device=like.device)[None]
        cos, sin = self._module(like[None], positions, *self._args)
        half = sin.shape[-1] // 2
        return torch.stack([cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=-1)], dim=1)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the first R dimensions of x [T, H, D] by cos and sin [T, 1, R]. Pairs i with i + R / 2."""
    width = cos.shape[-1]
    rotated = x if width == x.shape[-1] else x[..., :width]
    rotated = torch.addcmul(rotated * cos, rotated.roll(width // 2, -1), sin).to(x.dtype)
    return rotated if width == x.shape[-1] else torch.cat([rotated, x[..., width:]], dim=-1)


class _Layer:
    """One decoder layer: attention and a gated MLP, each added to the residual stream."""

    def __init__(self, parts: LayerParts, owner: FusedDecoder) -> None:
        self._parts = parts
        self._qkv: Linear = owner.take(parts.qkv)
        self._out: Linear = owner.take([parts.out])
        self._gate_up: Linear = owner.take(parts.gate_up)
        self._down: Linear = owner.take([parts.down])
        self._num_heads = parts.num_q_heads + 2 * parts.num_kv_heads
        self._num_rotated = parts.num_q_heads + parts.num_kv_heads

    def add_small(self, form: str) -> None:
        self._qkv = with_small(self._qkv, form)
        self._out = with_small(self._out, form)
        self._gate_up = with_small(self._gate_up, form)
        self._down = with_small(self._down, form)

    def row_shapes(self) -> list[tuple[int, int, bool]]:
        linears = [(self._qkv, False), (self._out, False), (self._gate_up, self._parts.gate is not None)]
        return [
            (*linear.weight.shape, is_gated)
            for linear, is_gated in [*linears, (self._down, False)]
            if isinstance(linear, PlainLinear)
        ]

    def __call__(
        self,
        i: int,
        x: torch.Tensor,
        rotary: dict[str, tuple[torch.Tensor, torch.Tensor]],
        context: ForwardContext,
    ) -> torch.Tensor:
        parts = self._parts
        attended = self._attend(i, self._normed(self._qkv, x, parts.pre_attention), rotary, context)
        x = self._add(self._out, attended, x, parts.post_attention)
        return self._add(self._down, self._gated(x), x, parts.post_mlp)

    def _normed(self, linear: Linear, x: torch.Tensor, norm: Norm | None) -> torch.Tensor:
        """Return the linear layer's result for the normed x."""
        if isinstance(linear, PlainLinear) and linear.takes_row(x):
            return linear.row(x, None if norm is None else (norm.weight, norm.eps), None)
        return linear(x if norm is None else norm(x))

    def _gated(self, x: torch.Tensor) -> torch.Tensor:
        """[T, hidden] -> [T, N]: the norm, both halves, and their product."""
        linear, norm, gate = self._gate_up, self._parts.pre_mlp, self._parts.gate
        if gate is not None and isinstance(linear, PlainLinear) and linear.takes_row(x):
            return linear.row(x, None if norm is None else (norm.weight, norm.eps), gate)
        gate_up = self._normed(linear, x, norm)
        if gate is not None and dispatch.uses_triton(gate_up):
            return dispatch.silu_mul(gate_up, gate)
        gate_part, up = gate_up.chunk(2, dim=-1)
        gated: torch.Tensor = self._parts.activation(gate_part) * up
        return gated

    def _attend(
        self,
        i: int,
        qkv: torch.Tensor,
        rotary: dict[str, tuple[torch.Tensor, torch.Tensor]],
        context: ForwardContext,
    ) -> torch.Tensor:
        """[T, (Hq + 2 Hkv) * D] -> [T, Hq * D]."""
        parts = self._parts
        num_tokens = qkv.shape[0]
        if parts.whole_norms is not None:
            qk = self._norm_whole(qkv, *parts.whole_norms)
        else:
            qk = qkv.view(num_tokens, self._num_heads, parts.head_dim).narrow(1, 0, self._num_rotated)
        v = qkv.view(num_tokens, self._num_heads, parts.head_dim).narrow(1, self._num_rotated, parts.num_kv_heads)
        if parts.head_norms is not None:
            qk = parts.head_norms.by_head(qk)
        if parts.rotary is not None:
            if isinstance(context, TableContext):
                cos, sin = rotary[parts.rotary]
                rotated = cos.squeeze(1), sin.squeeze(1)
                return context.attend_rotating(i, qk, v, rotated, parts.attention).reshape(num_tokens, -1)
            qk = rotate(qk, *rotary[parts.rotary])
        q, k = qk.narrow(1, 0, parts.num_q_heads), qk.narrow(1, parts.num_q_heads, parts.num_kv_heads)
        q, k, v = (each.transpose(0, 1).unsqueeze(0) for each in (q, k, v))
        return context.attend(i, q, k, v, parts.attention).reshape(num_tokens, -1)

    def _norm_whole(self, qkv: torch.Tensor, q_norm: Norm, k_norm: Norm) -> torch.Tensor:
        parts = self._parts
        q_len, k_len = parts.num_q_heads * parts.head_dim, parts.num_kv_heads * parts.head_dim
        qk = torch.cat([q_norm(qkv[:, :q_len]), k_norm(qkv[:, q_len : q_len + k_len])], dim=-1)
        return qk.view(qkv.shape[0], self._num_rotated, parts.head_dim)

    def _add(self, linear: Linear, hidden: torch.Tensor, residual: torch.Tensor, norm: Norm | None) -> torch.Tensor:
        if norm is None and self._parts.residual_scale == 1.0:
            return linear.add(hidden, residual)
        added = linear(hidden) if norm is None else norm(linear(hidden))
        return torch.add(residual, added, alpha=self._parts.residual_scale)
