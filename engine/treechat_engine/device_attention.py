"""The context of a forward on a GPU: the tables that kernels read are made once per step and copied once.

On the CPU a path is a list of runs that are viewed in place (`attention.py`); a GPU reads scattered slots as fast, and
what costs there is launches and copies. So a layer is one launch that writes and one or two that attend.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from treechat_engine.context import AttentionOptions, SequenceSlice
from treechat_engine.slots import SlotPool
from treechat_kernels import dispatch
from treechat_kernels.layout import Layout, shared_prefixes
from treechat_kernels.runs import clip_runs, slot_tensor


class DeviceContext:
    """A forward over slots: writes the new tokens' KV, then attends over each sequence's path."""

    def __init__(self, pool: SlotPool, sequences: Sequence[SequenceSlice]) -> None:
        self.pool = pool
        device = pool.k[0].device
        kv_lens, q_lens = [s.kv_len for s in sequences], [s.q_len for s in sequences]
        runs = [clip_runs(s.runs, 0, s.kv_len) for s in sequences]
        self._layout = Layout.build(kv_lens, q_lens, device, shared_prefixes(runs, kv_lens, q_lens))
        paths = torch.split(slot_tensor([run for path in runs for run in path]), kv_lens)
        new = [path[-q_len:] for path, q_len in zip(paths, q_lens, strict=True)]
        table = torch.cat([*paths, *new])
        if device.type == "cuda":
            table = table.pin_memory().to(device, non_blocking=True)
        self._slots, self._write_slots = torch.split(table.to(device), [sum(kv_lens), sum(q_lens)])

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: AttentionOptions
    ) -> torch.Tensor:
        q, k, v = (each[0].transpose(0, 1) for each in (q, k, v))
        k_pool, v_pool = self.pool.k[layer], self.pool.v[layer]
        dispatch.write_kv(k_pool, v_pool, k, v, self._write_slots)
        out = dispatch.attend(
            q,
            k_pool,
            v_pool,
            self._slots,
            self._layout,
            scaling=options.scaling,
            sliding_window=options.sliding_window,
            softcap=options.softcap,
            sinks=options.sinks,
        )
        return out.unsqueeze(0)
