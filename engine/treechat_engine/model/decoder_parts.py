"""Find the parts of the standard decoder in a transformers model: its modules, and how each layer attends.

No family is known by name. Attributes identify each part, and a trial shows what a norm computes. The comparison at
load time (`startup/decoder_choice.py`) shows whether the whole is right.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from treechat_engine.attention.attention import ProbeContext
from treechat_engine.attention.context import AttentionOptions, use_context
from treechat_kernels import dispatch, reference

_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
_LAYER_PARTS = {"self_attn", "mlp", *_NORMS}
_ATTENTION_PARTS = {"q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "q_norm", "k_norm", "rotary_emb"}
_MLP_PARTS = {"gate_proj", "up_proj", "gate_up_proj", "down_proj", "act_fn", "activation_fn"}
# Their tables cannot be computed ahead.
_LENGTH_DEPENDENT_ROPES = ("dynamic", "longrope")


class NotStandardError(Exception):
    """The model is not the standard decoder. The message gives the difference."""


@dataclass(frozen=True)
class Norm:
    """x / rms(x) * weight over the last dimension. weight None: no weight."""

    weight: torch.Tensor | None
    eps: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "cpu" and x.dtype == torch.float32:
            # torch.rms_norm is eight operations here, 12.5 us for a row of 576; these are four, and 8 us.
            length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
            scale = torch.addcmul(self._eps, length, length, value=1 / x.shape[-1]).rsqrt_()
            return x * scale if self.weight is None else (x * scale).mul_(self.weight)
        if dispatch.uses_triton(x):
            return dispatch.rms_norm(x, self.weight, self.eps)[0]
        return torch.rms_norm(x, (x.shape[-1],), self.weight, self.eps)

    @cached_property
    def _eps(self) -> torch.Tensor:
        return torch.tensor(self.eps)

    def by_head(self, x: torch.Tensor) -> torch.Tensor:
        """x [T, H, D] with a weight of [H, D]."""
        if dispatch.uses_triton(x):
            return dispatch.rms_norm(x, self.weight, self.eps)[0]
        normed = torch.rms_norm(x, (x.shape[-1],), None, self.eps)
        return normed if self.weight is None else normed * self.weight


@dataclass(frozen=True)
class LayerParts:
    """One decoder layer.

    qkv: the linears of queries, keys and values, joined in this order.
    out: the linear after attention.
    gate_up: the linears of gate and up, joined in this order.
    down: the last linear of the MLP.
    activation: the module of the gate's activation.
    gate: the activation's name in `silu_mul`; None if it has none.
    pre_attention, post_attention: norms before and after attention; None: no norm.
    pre_mlp, post_mlp: norms before and after the MLP; None: no norm.
    head_norms: q and k norms per head, weights joined to [Hq + Hkv, D].
    whole_norms: q and k norms over all heads.
    rotary: the layer type whose cos and sin apply; None if the layer has no rotary embedding.
    residual_scale: multiplies each branch before it is added.
    num_q_heads, num_kv_heads: numbers of heads.
    head_dim: dimensions of a head.
    attention: how the layer attends.
    """

    qkv: list[nn.Linear]
    out: nn.Linear
    gate_up: list[nn.Linear]
    down: nn.Linear
    activation: nn.Module
    gate: str | None
    pre_attention: Norm | None
    post_attention: Norm | None
    pre_mlp: Norm | None
    post_mlp: Norm | None
    head_norms: Norm | None
    whole_norms: tuple[Norm, Norm] | None
    rotary: str | None
    residual_scale: float
    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    attention: AttentionOptions


@dataclass(frozen=True)
class DecoderParts:
    """The whole model.

    embed: ids to embeddings.
    embed_scale: multiplies the embeddings.
    layers: the decoder layers in order.
    rotary: the module that computes cos and sin.
    rotary_takes_type: whether that module takes a layer type.
    norm: the last norm.
    head: the linear to logits.
    logits_scale: multiplies the logits.
    logits_cap: the soft cap of the scaled logits; None: no cap.
    """

    embed: nn.Module
    embed_scale: float
    layers: list[LayerParts]
    rotary: nn.Module
    rotary_takes_type: bool
    norm: Norm
    head: nn.Linear
    logits_scale: float
    logits_cap: float | None


def read_parts(model: Any) -> DecoderParts:
    """Return the parts of the model. Its attention must be the engine's. Raises NotStandardError."""
    decoder = model.get_decoder()
    head = model.get_output_embeddings()
    for name in ("embed_tokens", "layers", "norm", "rotary_emb"):
        if not isinstance(getattr(decoder, name, None), nn.Module):
            raise NotStandardError(f"the model has no {name}")
    if type(head) is not nn.Linear:
        raise NotStandardError("the model's head is not a plain linear layer")
    text = model.config.get_text_config(decoder=True)
    rope_type = getattr(decoder.rotary_emb, "rope_type", "default")
    for name in rope_type.values() if isinstance(rope_type, dict) else (rope_type,):
        if name in _LENGTH_DEPENDENT_ROPES:
            raise NotStandardError(f"the rotary embedding is {name}, which changes with the longest position")
    takes_type = "layer_type" in inspect.signature(decoder.rotary_emb.forward).parameters
    probe, embed_scale = _probe(model, decoder)
    types = getattr(text, "layer_types", None) or ["full_attention"] * len(probe.calls)
    return DecoderParts(
        embed=decoder.embed_tokens,
        embed_scale=embed_scale,
        layers=[
            _read_layer(decoder.layers[i], shape[0], options, types[i])
            for i, (_, shape, options) in enumerate(probe.calls)
        ],
        rotary=decoder.rotary_emb,
        rotary_takes_type=takes_type,
        norm=_read_norm(decoder.norm),
        head=head,
        logits_scale=getattr(text, "logit_scale", None) or 1 / (getattr(text, "logits_scaling", None) or 1.0),
        logits_cap=getattr(text, "final_logit_softcapping", None),
    )


def _probe(model: Any, decoder: Any) -> tuple[ProbeContext, float]:
    """Return how the layers attend, and the factor between the embeddings and the first layer's input."""
    seen: list[torch.Tensor] = []

    def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])

    probe = ProbeContext()
    ids = torch.arange(2, device=model.device)[None]
    hook = decoder.layers[0].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with use_context(probe), torch.inference_mode():
            model(input_ids=ids, position_ids=ids, use_cache=False)
            embedded = decoder.embed_tokens(ids)
    finally:
        hook.remove()
    if seen[0].shape != embedded.shape:
        raise NotStandardError("the embeddings are projected")
    scale = float(seen[0].double().norm() / embedded.double().norm().clamp_min(1e-30))
    scale = 1.0 if abs(scale - 1) < 1e-5 else scale
    if not torch.allclose(embedded * scale, seen[0], rtol=1e-2, atol=1e-5):
        raise NotStandardError("the embeddings are not only scaled")
    return probe, scale


def _read_layer(layer: Any, num_kv_heads: int, options: AttentionOptions, kind: str) -> LayerParts:
    attention, mlp = layer.self_attn if hasattr(layer, "self_attn") else None, getattr(layer, "mlp", None)
    if attention is None or mlp is None:
        raise NotStandardError("a layer is not made of self_attn and mlp")
    for part, known in ((layer, _LAYER_PARTS), (attention, _ATTENTION_PARTS), (mlp, _MLP_PARTS)):
        children = [name for name, child in part.named_children() if not isinstance(child, nn.Dropout)]
        if unknown := sorted(set(children) - known):
            raise NotStandardError(f"{type(part).__name__} has {', '.join(unknown)}")
    if options.softcap is not None and options.sinks is not None:
        raise NotStandardError("attention has both a soft cap and sinks")
    head_dim = int(attention.head_dim)
    qkv = _linears(attention, "qkv_proj", ("q_proj", "k_proj", "v_proj"))
    out = _linears(attention, "o_proj", ())[0]
    num_q_heads = out.in_features // head_dim
    rows = sum(linear.out_features for linear in qkv)
    if rows != (num_q_heads + 2 * num_kv_heads) * head_dim:
        raise NotStandardError(f"queries, keys and values have {rows} rows")
    norms = {name: _read_norm(getattr(layer, name)) for name in _NORMS if hasattr(layer, name)}
    pre_attention, post_attention, pre_mlp, post_mlp = _arrange_norms(norms)
    activation = getattr(mlp, "act_fn", None) or mlp.activation_fn
    head_norms, whole_norms = _read_qk_norms(attention, num_q_heads, num_kv_heads, head_dim)
    return LayerParts(
        qkv=qkv,
        out=out,
        gate_up=_linears(mlp, "gate_up_proj", ("gate_proj", "up_proj")),
        down=_linears(mlp, "down_proj", ())[0],
        activation=activation,
        gate=_read_activation(activation),
        pre_attention=pre_attention,
        post_attention=post_attention,
        pre_mlp=pre_mlp,
        post_mlp=post_mlp,
        head_norms=head_norms,
        whole_norms=whole_norms,
        rotary=kind if getattr(attention, "use_rope", True) else None,
        residual_scale=float(getattr(layer, "residual_multiplier", 1.0)),
        num_q_heads=num_q_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        attention=options,
    )


def _arrange_norms(norms: dict[str, Norm]) -> tuple[Norm | None, Norm | None, Norm | None, Norm | None]:
    """Return the norms before and after attention and the MLP. One name has two meanings among families."""
    pre, post, pre_mlp, post_mlp = (norms.get(name) for name in _NORMS)
    if pre is not None and pre_mlp is None and post_mlp is None:
        return pre, None, post, None
    return pre, post, pre_mlp, post_mlp


def _linears(module: Any, joined: str, split: tuple[str, ...]) -> list[nn.Linear]:
    names = (joined,) if hasattr(module, joined) else split
    found = [getattr(module, name, None) for name in names]
    if not found or any(type(linear) is not nn.Linear for linear in found):
        raise NotStandardError(f"{type(module).__name__} has no plain linear layers {', '.join(names) or joined}")
    return [linear for linear in found if isinstance(linear, nn.Linear)]


def _read_qk_norms(
    attention: Any, num_q_heads: int, num_kv_heads: int, head_dim: int
) -> tuple[Norm | None, tuple[Norm, Norm] | None]:
    if getattr(attention, "q_norm", None) is None:
        return None, None
    q, k = _read_norm(attention.q_norm), _read_norm(attention.k_norm)
    if q.weight is None or k.weight is None or q.eps != k.eps:
        raise NotStandardError("the norms of queries and keys have no weights, or differ in eps")
    if q.weight.numel() == k.weight.numel() == head_dim:
        weight = torch.cat([q.weight.expand(num_q_heads, -1), k.weight.expand(num_kv_heads, -1)])
        return Norm(weight, q.eps), None
    if q.weight.numel() == num_q_heads * head_dim and k.weight.numel() == num_kv_heads * head_dim:
        return None, (q, k)
    raise NotStandardError("the norms of queries and keys are neither per head nor over all heads")


def _read_norm(module: nn.Module) -> Norm:
    """Return the Norm that the module computes, by trial: with its weight, or with one plus its weight."""
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", None) or getattr(module, "eps", None)
    if not isinstance(weight, torch.Tensor) or not isinstance(eps, float):
        raise NotStandardError(f"{type(module).__name__} is not an RMS norm")
    with torch.inference_mode():
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(3, weight.shape[0], generator=generator).to(weight)
        expected = module(x).float()
        for candidate in (weight.detach(), weight.detach() + 1):
            norm = Norm(candidate, eps)
            scale = float(expected.abs().max().clamp_min(1.0))
            if float((norm(x).float() - expected).abs().max()) <= 1e-2 * scale:
                return norm
    raise NotStandardError(f"{type(module).__name__} is not an RMS norm")


def _read_activation(module: nn.Module) -> str | None:
    """Return the name of the activation that the module computes, by trial."""
    x = torch.linspace(-4, 4, 64)
    gate_up = torch.cat([x, torch.ones_like(x)])[None]
    with torch.inference_mode():
        expected = module(x)
        for name in ("silu", "gelu", "gelu_tanh"):
            if torch.allclose(reference.silu_mul(gate_up, name)[0], expected, atol=1e-6):
                return name
    return None
