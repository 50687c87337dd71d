"""The torch references of attention over scattered slots: slow and simple. Every attention kernel is tested on them.

Shapes, here and in each kernel of the same name:
    q        [T, Hq, Dk]       new tokens of all sequences, packed; Hq is a multiple of Hkv
    k_pool   [S, Hkv, Dk]      one row per slot
    v_pool   [S, Hkv, Dv]
    slots    [sum(kv_lens)]    int64; the slots of all paths, each path in order of position
    kv_lens  tokens of each path, new tokens included; the pools hold the KV of all of them
    q_lens   new tokens of each path, which are its last ones
    result   [T, Hq, Dv]       in the dtype of q
Options:
    scaling         multiplies the scores
    sliding_window  W: a token sees itself and the W - 1 tokens before it; None: all tokens before it
    softcap         c: a score s becomes c * tanh(s / c); None: scores stay
    sinks           [Hq]: adds one key per head with this score and no value; None: no such key
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def extend_attention(
    q: torch.Tensor,
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    slots: torch.Tensor,
    kv_lens: Sequence[int],
    q_lens: Sequence[int],
    *,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the causal attention of new tokens over their paths, in a ragged batch. Scores and sums are float32."""
    out = q.new_empty(q.shape[0], q.shape[1], v_pool.shape[2])
    q_start = kv_start = 0
    for kv_len, q_len in zip(kv_lens, q_lens, strict=True):
        path_slots = slots[kv_start : kv_start + kv_len]
        out[q_start : q_start + q_len] = dense_attention(
            q[q_start : q_start + q_len],
            k_pool.index_select(0, path_slots),
            v_pool.index_select(0, path_slots),
            scaling=scaling,
            sliding_window=sliding_window,
            softcap=softcap,
            sinks=sinks,
        )
        q_start += q_len
        kv_start += kv_len
    return out


def decode_attention(
    q: torch.Tensor,
    k_pool: torch.Tensor,
    v_pool: torch.Tensor,
    slots: torch.Tensor,
    kv_lens: Sequence[int],
    *,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the attention of one new token per path: q is [B, Hq, Dk]."""
    return extend_attention(
        q,
        k_pool,
        v_pool,
        slots,
        kv_lens,
        [1] * len(kv_lens),
        scaling=scaling,
        sliding_window=sliding_window,
        softcap=softcap,
        sinks=sinks,
    )


def dense_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the attention of the last n tokens of one path of m: q [n, Hq, Dk], k [m, Hkv, Dk], v [m, Hkv, Dv]."""
    q_len, num_q_heads, _ = q.shape
    kv_len, num_kv_heads, v_dim = v.shape
    group = num_q_heads // num_kv_heads
    grouped = q.float().view(q_len, num_kv_heads, group, -1).permute(1, 2, 0, 3)  # [Hkv, G, n, Dk]
    scores = torch.matmul(grouped, k.float().permute(1, 2, 0).unsqueeze(1)) * scaling  # [Hkv, G, n, m]
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    q_position = torch.arange(kv_len - q_len, kv_len, device=q.device).unsqueeze(1)
    k_position = torch.arange(kv_len, device=q.device).unsqueeze(0)
    hidden = k_position > q_position
    if sliding_window is not None:
        hidden |= k_position <= q_position - sliding_window
    scores = scores.masked_fill(hidden, float("-inf"))
    if sinks is not None:
        sink = sinks.float().view(num_kv_heads, group, 1, 1).expand(-1, -1, q_len, 1)
        scores = torch.cat([scores, sink], dim=-1)
    weights = scores.softmax(dim=-1)[..., :kv_len]
    out = torch.matmul(weights, v.float().permute(1, 0, 2).unsqueeze(1))  # [Hkv, G, n, Dv]
    return out.permute(2, 0, 1, 3).reshape(q_len, num_q_heads, v_dim).to(q.dtype)
