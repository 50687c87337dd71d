"""The attention function registered with transformers, and the contexts that implement it.

Its name has no "flash", "sdpa", "paged|" or slash, which transformers treats specially. No mask function is registered
under it, so transformers builds no mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface

from treechat_engine.api import UnsupportedModelError
from treechat_engine.attention.context import AttentionOptions, SequenceSlice, current_context
from treechat_engine.kvcache.slots import SlotPool
from treechat_kernels.attention_reference import dense_attention, extend_attention
from treechat_kernels.cpu.path_attention import (
    PathReads,
    clip_extents,
    path_attention,
    plan_gathered_reads,
    plan_reads,
    slot_tensor,
    view_extent,
)
from treechat_kernels.cpu.sibling_attention import SiblingPlan, plan_siblings, sibling_attention

ATTENTION_NAME = "treechat"
# Options that would change the result if they were ignored.
_UNKNOWN_OPTIONS = ("position_bias", "head_mask", "block_table", "indexer", "topk_indices")


def treechat_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """query [1, Hq, T, Dk], key [1, Hkv, T, Dk], value [1, Hkv, T, Dv], packed -> ([1, T, Hq, Dv], None).

    The parameters are those of transformers' attention functions. Raises UnsupportedModelError for a mask, for
    attention
    that is not causal, and for unknown options.
    """
    if is_causal is False or not getattr(module, "is_causal", True):
        raise UnsupportedModelError("the model has attention that is not causal")
    if attention_mask is not None:
        raise UnsupportedModelError("the model's attention adds a mask or bias of its own to the scores")
    for name in _UNKNOWN_OPTIONS:
        if kwargs.get(name) is not None:
            raise UnsupportedModelError(f"the model's attention uses {name}, which the engine does not support")
    options = AttentionOptions(
        scaling if scaling is not None else query.shape[-1] ** -0.5, sliding_window, softcap or None, s_aux
    )
    layer: int = module.layer_idx  # type: ignore[assignment]  # nn.Module types every attribute as Tensor | Module
    # Some families call `view` on the result, as transformers' own attention functions allow.
    return current_context().attend(layer, query, key, value, options).contiguous(), None


def register() -> None:
    """Register the attention with transformers. Idempotent."""
    AttentionInterface.register(ATTENTION_NAME, treechat_attention)


class SiblingBatch(NamedTuple):
    """The decoding sequences of a step.

    indices: their places among the step's sequences.
    rows: their rows of the batch.
    longest: the length of the longest path in tokens.
    plan: how they attend together.
    """

    indices: list[int]
    rows: torch.Tensor
    longest: int
    plan: SiblingPlan


class PagedContext:
    """A forward over slots on the CPU: writes the new tokens' KV, then attends over each sequence's path.

    pool: the slots.
    sequences: the packed sequences of the step.
    gathers_paths: copy each path together before attending, so that the result does not depend on where its slots are.
    """

    def __init__(self, pool: SlotPool, sequences: Sequence[SequenceSlice], gathers_paths: bool = False) -> None:
        self.pool = pool
        self.sequences = sequences
        self._plan_reads = plan_gathered_reads if gathers_paths else plan_reads
        self._reads: dict[tuple[int, int | None], PathReads] = {}
        self._slots: torch.Tensor | None = None
        self._write_extents: list[tuple[int, int]] = []
        for sequence in sequences:
            start = sequence.kv_len - sequence.q_len
            self._write_extents.extend(clip_extents(sequence.extents, start, sequence.kv_len))
        decoding = [i for i, sequence in enumerate(sequences) if sequence.q_len == 1]
        self._siblings = self._plan_siblings(decoding) if len(decoding) > 1 else None
        self._write_slots: torch.Tensor | None = None
        if len(self._write_extents) > 2:
            self._write_slots = slot_tensor(self._write_extents)

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: AttentionOptions
    ) -> torch.Tensor:
        k_pool, v_pool = self.pool.k[layer], self.pool.v[layer]
        self._write(k_pool, k)
        self._write(v_pool, v)
        if options.softcap is not None or q.shape[3] != v.shape[3]:
            return self._attend_gathered(q, k_pool, v_pool, self.sequences, options)
        if len(self.sequences) == 1:
            return self._attend_sequence(0, q, k, v, k_pool, v_pool, options)
        out = q.new_empty(1, q.shape[2], q.shape[1], v.shape[3])
        siblings, window, done = self._siblings, options.sliding_window, list[int]()
        if siblings is not None and (window is None or window >= siblings.longest):
            done = siblings.indices
            sibling_rows = q[0].transpose(0, 1)
            if len(done) < len(self.sequences):
                sibling_rows = sibling_rows.index_select(0, siblings.rows)
            part = sibling_attention(
                sibling_rows, k_pool, v_pool, siblings.plan, scaling=options.scaling, sinks=options.sinks
            )
            if len(done) == len(self.sequences):
                return part.unsqueeze(0)
            out[0].index_copy_(0, siblings.rows, part)
        for i, sequence in enumerate(self.sequences):
            if i in done:
                continue
            rows = slice(sequence.q_start, sequence.q_start + sequence.q_len)
            part = self._attend_sequence(i, q[:, :, rows], k[:, :, rows], v[:, :, rows], k_pool, v_pool, options)
            out[:, rows] = part
        return out

    def _plan_siblings(self, decoding: list[int]) -> SiblingBatch | None:
        """Return how the sequences with one new token attend together; None if they share nothing."""
        sequences = [self.sequences[i] for i in decoding]
        kv_lens = [sequence.kv_len for sequence in sequences]
        plan = plan_siblings([sequence.extents for sequence in sequences], kv_lens, self.pool.k[0].shape[1])
        if plan is None:
            return None
        return SiblingBatch(decoding, torch.tensor([sequence.q_start for sequence in sequences]), max(kv_lens), plan)

    def _write(self, pool: torch.Tensor, new: torch.Tensor) -> None:
        """Copy new [1, Hkv, T, D] to its slots."""
        if self._write_slots is not None:
            pool.index_copy_(0, self._write_slots, new[0].transpose(0, 1))
        elif len(self._write_extents) == 1:
            view_extent(pool, *self._write_extents[0]).copy_(new)
        else:
            done = 0
            for first, length in self._write_extents:
                view_extent(pool, first, length).copy_(new.narrow(2, done, length))
                done += length

    def _attend_sequence(
        self,
        i: int,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        k_pool: torch.Tensor,
        v_pool: torch.Tensor,
        options: AttentionOptions,
    ) -> torch.Tensor:
        sequence, window = self.sequences[i], options.sliding_window
        if window is not None and window >= sequence.kv_len:
            window = None
        if window is not None and sequence.q_len > 1:
            return self._attend_gathered(q, k_pool, v_pool, [sequence], options)
        reads = self._reads.get((i, window))
        if reads is None:
            start = 0 if window is None else sequence.kv_len - window
            # A single new token attends to itself through its slot; several attend to each other through their new
            # keys.
            stop = sequence.kv_len if sequence.q_len == 1 else sequence.kv_len - sequence.q_len
            reads = self._reads[(i, window)] = self._plan_reads(sequence.extents, start, stop)
        own = None if sequence.q_len == 1 else (k, v)
        return path_attention(q, k_pool, v_pool, reads, own, scaling=options.scaling, sinks=options.sinks)

    def _attend_gathered(
        self,
        q: torch.Tensor,
        k_pool: torch.Tensor,
        v_pool: torch.Tensor,
        sequences: Sequence[SequenceSlice],
        options: AttentionOptions,
    ) -> torch.Tensor:
        if sequences is self.sequences:
            slots = self._slots = self._slots if self._slots is not None else self._path_slots(sequences)
        else:
            slots = self._path_slots(sequences)
        out = extend_attention(
            q[0].transpose(0, 1),
            k_pool,
            v_pool,
            slots,
            [s.kv_len for s in sequences],
            [s.q_len for s in sequences],
            scaling=options.scaling,
            sliding_window=options.sliding_window,
            softcap=options.softcap,
            sinks=options.sinks,
        )
        return out.unsqueeze(0)

    def _path_slots(self, sequences: Sequence[SequenceSlice]) -> torch.Tensor:
        extents = [extent for s in sequences for extent in clip_extents(s.extents, 0, s.kv_len)]
        return slot_tensor(extents)


class ProbeContext:
    """A forward without slots that records how each layer calls attention. `calls` has one entry per call, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, tuple[int, int, int], AttentionOptions]] = []

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: AttentionOptions
    ) -> torch.Tensor:
        self.calls.append((layer, (k.shape[1], k.shape[3], v.shape[3]), options))
        out = dense_attention(
            q[0].transpose(0, 1),
            k[0].transpose(0, 1),
            v[0].transpose(0, 1),
            scaling=options.scaling,
            sliding_window=options.sliding_window,
            softcap=options.softcap,
            sinks=options.sinks,
        )
        return out.unsqueeze(0)
