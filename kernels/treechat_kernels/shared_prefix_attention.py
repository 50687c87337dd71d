"""Triton: attention of one new token for each of several siblings; their shared prefix is read once for all of them.

Two passes of the decoding kernel: the splits of the prefix, with the heads of all siblings as rows, then each sibling's
own splits. The splits and the merge are those of separate decoding. `prefix_sharing` decides when this is faster.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from treechat_kernels.decode_attention import merge_splits, new_parts, run_splits
from treechat_kernels.layout import Layout, SharedPrefix


def shared_prefix_attention(
    q: torch.Tensor,
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    slots: torch.Tensor,
    kv_lens: Sequence[int],
    prefix_len: int,
    *,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return `decode_attention` [B, Hq, Dv] of q [B, Hq, Dk], for B paths whose first prefix_len slots are the same."""
    all_paths = list(range(len(kv_lens)))
    layout = Layout.build(kv_lens, [1] * len(kv_lens), q.device, [(all_paths, prefix_len)])
    out = q.new_empty(q.shape[0], q.shape[1], v_pool.shape[2])
    if not layout.shared:
        layout = Layout.build(kv_lens, [1] * len(kv_lens), q.device)
        shared = SharedPrefix(layout.single, 0, layout.no_splits)
    else:
        (shared,) = layout.shared
    shared_paths(
        out, q, k_pool, v_pool, slots, layout, shared, scaling=scaling, sliding_window=sliding_window,
        softcap=softcap, sinks=sinks,
    )  # fmt: skip
    return out


def shared_paths(
    out: torch.Tensor,
    q: torch.Tensor,
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    slots: torch.Tensor,
    layout: Layout,
    shared: SharedPrefix,
    *,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> None:
    """Fill the siblings' rows of `out` [T, Hq, Dv]."""
    paths = shared.paths
    parts = new_parts(q, v_pool, paths, layout)
    args = (parts, q, k_pool, v_pool, slots, layout, paths, shared, scaling, sliding_window, softcap)
    run_splits(*args, shared=True)
    if not shared.is_whole:
        run_splits(*args)
    merge_splits(out, parts, layout, paths, sliding_window, sinks)
