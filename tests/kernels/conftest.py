"""Fixtures of the kernel tests, which run on the device, or under Triton's interpreter without one."""

from __future__ import annotations

import pytest
import torch

from tests.interpreting import patch_once

patch_once()


@pytest.fixture
def device():
    """Return the device of the tensors: the interpreter takes tensors on the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def nan_in_new_tensors():
    """Fill new tensors with NaN, so values that a kernel fails to write are noticed."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def exact_attention(
    q, k_pool, v_pool, slots, kv_lens, q_lens, *, scaling, sliding_window=None, softcap=None, sinks=None
):
    """Return attention in float64, computed step by step for one path at a time."""
    outs, q_start, kv_start = [], 0, 0
    group = q.shape[1] // k_pool.shape[1]
    for kv_len, q_len in zip(kv_lens, q_lens, strict=True):
        path = slots[kv_start : kv_start + kv_len]
        k, v = (pool[path].double().repeat_interleave(group, dim=1) for pool in (k_pool, v_pool))
        scores = torch.einsum("nhd,mhd->hnm", q[q_start : q_start + q_len].double(), k) * scaling
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        age = torch.arange(kv_len - q_len, kv_len, device=q.device)[:, None] - torch.arange(kv_len, device=q.device)
        hidden = (age < 0) | (age >= (sliding_window or kv_len))
        scores = scores.masked_fill(hidden, float("-inf"))
        sink = sinks.double()[:, None, None].expand(-1, q_len, 1) if sinks is not None else scores[:, :, :0]
        weights = torch.cat([scores, sink], dim=-1).softmax(-1)[:, :, :kv_len]
        outs.append(torch.einsum("hnm,mhd->nhd", weights, v))
        q_start, kv_start = q_start + q_len, kv_start + kv_len
    return torch.cat(outs)


@pytest.fixture(name="exact_attention")
def exact_attention_fixture():
    return exact_attention
