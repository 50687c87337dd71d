"""The context of forwards on a GPU: kernels read tables of slots, which are built and copied once per step.

On the CPU a path is a list of extents, each viewed in place (`attention.py`). A GPU reads scattered slots as fast, and
its costs are launches and copies. A layer is therefore one launch that writes and one or two that attend.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from treechat_engine.attention.context import AttentionOptions, SequenceSlice
from treechat_engine.kvcache.slots import SlotPool
from treechat_kernels import dispatch
from treechat_kernels.cpu.path_attention import clip_extents, slot_tensor
from treechat_kernels.layout import Layout, shared_prefixes


class TableContext:
    """A forward over slots: writes the new tokens' KV, then attends over each sequence's path.

    pool: the slots' KV.
    slots: the slots of all paths, divided as `layout` says.
    write_slots: [T], the slots of the new tokens.
    layout: the paths' lengths and places in `slots`.
    """

    def __init__(self, pool: SlotPool, slots: torch.Tensor, write_slots: torch.Tensor, layout: Layout) -> None:
        self.pool = pool
        self._slots = slots
        self._write_slots = write_slots
        self._layout = layout

    @classmethod
    def of_step(cls, pool: SlotPool, sequences: Sequence[SequenceSlice]) -> TableContext:
        """Return the context of one step: builds its tables and copies them to the device."""
        device = pool.k[0].device
        kv_lens, q_lens = [s.kv_len for s in sequences], [s.q_len for s in sequences]
        extents = [clip_extents(s.extents, 0, s.kv_len) for s in sequences]
        layout = Layout.build(kv_lens, q_lens, device, shared_prefixes(extents, kv_lens, q_lens))
        paths = torch.split(slot_tensor([extent for path in extents for extent in path]), kv_lens)
        new = [path[-q_len:] for path, q_len in zip(paths, q_lens, strict=True)]
        table = torch.cat([*paths, *new])
        if device.type == "cuda":
            table = table.pin_memory().to(device, non_blocking=True)
        slots, write_slots = torch.split(table.to(device), [sum(kv_lens), sum(q_lens)])
        return cls(pool, slots, write_slots, layout)

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: AttentionOptions
    ) -> torch.Tensor:
        q, k, v = (each[0].transpose(0, 1) for each in (q, k, v))
        dispatch.write_kv(self.pool.k[layer], self.pool.v[layer], k, v, self._write_slots)
        return self._attend(layer, q, options).unsqueeze(0)

    def attend_rotating(
        self,
        layer: int,
        qk: torch.Tensor,
        v: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        options: AttentionOptions,
    ) -> torch.Tensor:
        """Rotate, write and attend: qk [T, Hq + Hkv, D], v [T, Hkv, D], cos and sin [T, R] -> [T, Hq, D]."""
        k_pool, v_pool = self.pool.k[layer], self.pool.v[layer]
        q = dispatch.rotate_and_write(k_pool, v_pool, qk, v, *rotary, self._write_slots)
        return self._attend(layer, q, options)

    def _attend(self, layer: int, q: torch.Tensor, options: AttentionOptions) -> torch.Tensor:
        return dispatch.attend(
            q,
            self.pool.k[layer],
            self.pool.v[layer],
            self._slots,
            self._layout,
            scaling=options.scaling,
            sliding_window=options.sliding_window,
            softcap=options.softcap,
            sinks=options.sinks,
        )
