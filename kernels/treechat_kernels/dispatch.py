"""The only place that chooses a kernel: Triton for tensors on CUDA, the torch reference for all others.

TREECHAT_KERNELS=reference forces the references, for comparison or as a workaround. TREECHAT_KERNELS=triton forces
Triton; with TRITON_INTERPRET=1 this runs the GPU's code path slowly on a CPU, for tests. Triton is imported at the
first call that needs it, so a machine without a GPU neither needs nor loads it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from treechat_kernels import attention_reference, reference
from treechat_kernels.layout import Layout
from treechat_kernels.prefix_sharing import Siblings, sharing_is_faster


def uses_tables(device: torch.device) -> bool:
    """Return whether a forward on this device uses `attend`. On the CPU attention reads views instead (`cpu`)."""
    return device.type != "cpu" or forced_kernels() == "triton"


def uses_triton(x: torch.Tensor) -> bool:
    """Return whether tensors like x use Triton kernels."""
    return forced_kernels() == "triton" or (x.is_cuda and torch.version.hip is None and forced_kernels() != "reference")


@cache
def forced_kernels() -> str:
    """Return the value of TREECHAT_KERNELS, read once, since every layer asks for it."""
    return os.environ.get("TREECHAT_KERNELS", "").lower()


def attend(
    q: torch.Tensor,
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    slots: torch.Tensor,
    layout: Layout,
    *,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the attention of a ragged batch: shapes as in `attention_reference`, lengths in `layout`.

    A path with one new token uses the decoding kernel, any other path the extending one, whatever else is in the batch.
    """
    if not uses_triton(q):
        return attention_reference.extend_attention(
            q, k_pool, v_pool, slots, layout.kv_lens, layout.q_lens, scaling=scaling, sliding_window=sliding_window,
            softcap=softcap, sinks=sinks,
        )  # fmt: skip
    return attend_with_triton(
        q, k_pool, v_pool, slots, layout, scaling=scaling, sliding_window=sliding_window, softcap=softcap, sinks=sinks
    )


def attend_with_triton(
    q: torch.Tensor,
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    slots: torch.Tensor,
    layout: Layout,
    *,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return what `attend` does, computed by the Triton kernels."""
    from treechat_kernels.decode_attention import decode_paths
    from treechat_kernels.extend_attention import extend_paths
    from treechat_kernels.shared_prefix_attention import shared_paths

    assert q.dtype == k_pool.dtype == v_pool.dtype, f"queries are {q.dtype}, keys {k_pool.dtype}"
    q = q if q.stride(2) == 1 else q.contiguous()
    out = q.new_empty(q.shape[0], q.shape[1], v_pool.shape[2])
    args = (out, q, k_pool, v_pool, slots, layout)
    options: dict[str, Any] = {"scaling": scaling, "sliding_window": sliding_window, "softcap": softcap, "sinks": sinks}
    token_bytes = (k_pool.stride(0) + v_pool.stride(0)) * k_pool.element_size()
    pays = [
        each.is_whole
        or sharing_is_faster(Siblings(each.paths.num, each.prefix_len, q.shape[1], token_bytes, sliding_window))
        for each in layout.shared
    ]
    if any(pays):
        for group, worth in zip(layout.shared, pays, strict=True):
            if worth:
                shared_paths(*args, group, **options)
            else:
                decode_paths(*args, group.paths, **options)
        decode_paths(*args, layout.unshared, **options)
    else:
        decode_paths(*args, layout.single, **options)
    extend_paths(*args, layout.several, **options)
    return out


def write_kv(k_pool: torch.Tensor, v_pool: torch.Tensor, k: torch.Tensor, v: torch.Tensor, slots: torch.Tensor) -> None:
    """See `reference.write_kv`."""
    if uses_triton(k_pool):
        from treechat_kernels.write_kv import write_kv as launch

        launch(k_pool, v_pool, k, v, slots)
    else:
        reference.write_kv(k_pool, v_pool, k, v, slots)


def rotate_and_write(
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    qk: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    slots: torch.Tensor,
) -> torch.Tensor:
    """See `reference.rotate_and_write`."""
    if uses_triton(k_pool):
        from treechat_kernels.write_kv import rotate_and_write as launch

        return launch(k_pool, v_pool, qk, v, cos, sin, slots)
    return reference.rotate_and_write(k_pool, v_pool, qk, v, cos, sin, slots)


def gather_slots(pools: Sequence[torch.Tensor], slots: torch.Tensor) -> torch.Tensor:
    """See `reference.gather_slots`."""
    if uses_triton(pools[0]):
        from treechat_kernels.gather_scatter import gather_slots as launch

        return launch(pools, slots)
    return reference.gather_slots(pools, slots)


def scatter_slots(pools: Sequence[torch.Tensor], slots: torch.Tensor, block: torch.Tensor) -> None:
    """See `reference.scatter_slots`."""
    if uses_triton(pools[0]):
        from treechat_kernels.gather_scatter import scatter_slots as launch

        launch(pools, slots, block)
    else:
        reference.scatter_slots(pools, slots, block)


def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    eps: float,
    *,
    residual: torch.Tensor | None = None,
    plus_one: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `reference.rms_norm`."""
    if uses_triton(x):
        from treechat_kernels.rms_norm import rms_norm as launch

        return launch(x, weight, eps, residual=residual, plus_one=plus_one)
    return reference.rms_norm(x, weight, eps, residual=residual, plus_one=plus_one)


def rotary(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, interleaved: bool = False, table: str = "folded"
) -> torch.Tensor:
    """See `reference.rotary`."""
    if uses_triton(x):
        from treechat_kernels.rotary import rotary as launch

        return launch(x, cos, sin, interleaved=interleaved, table=table)
    return reference.rotary(x, cos, sin, interleaved=interleaved, table=table)


def silu_mul(gate_up: torch.Tensor, activation: str = "silu") -> torch.Tensor:
    """See `reference.silu_mul`."""
    if uses_triton(gate_up):
        from treechat_kernels.silu_mul import silu_mul as launch

        return launch(gate_up, activation)
    return reference.silu_mul(gate_up, activation)


def gate_mul(gate: torch.Tensor, up: torch.Tensor, activation: str = "silu") -> torch.Tensor:
    """See `reference.gate_mul`."""
    if uses_triton(gate):
        from treechat_kernels.silu_mul import gate_mul as launch

        return launch(gate, up, activation)
    return reference.gate_mul(gate, up, activation)


def linear_row(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    norm: tuple[torch.Tensor | None, float] | None = None,
    residual: torch.Tensor | None = None,
    gate: str | None = None,
) -> torch.Tensor:
    """See `reference.linear_row`."""
    if uses_triton(x):
        from treechat_kernels.linear import linear_row as launch

        return launch(x, weight, bias, norm=norm, residual=residual, gate=gate)
    return reference.linear_row(x, weight, bias, norm=norm, residual=residual, gate=gate)


def pick(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """See `reference.pick`."""
    if uses_triton(logits):
        from treechat_kernels.sample import pick as launch

        return launch(logits)
    return reference.pick(logits)
