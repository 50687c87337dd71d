"""What one forward needs besides token ids: which slots each sequence reads and writes.

The context reaches the attention function through this module and not through model kwargs, which some model families
swallow. It is kept per thread, so that engines on several threads do not meet. This is the one global of the package.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch


class AttentionOptions(NamedTuple):
    """How a layer attends. See treechat_kernels.attention_reference for what each option means."""

    scaling: float
    sliding_window: int | None
    softcap: float | None
    sinks: torch.Tensor | None


class SequenceSlice(NamedTuple):
    """One sequence of a packed batch: its new tokens are q_start .. q_start + q_len of the batch, the last of kv_len.

    runs: (first slot, length) of the path's slots in order of position; they may go on past kv_len.
    """

    q_start: int
    q_len: int
    kv_len: int
    extents: Sequence[tuple[int, int]]


class Work(NamedTuple):
    """One sequence's part in a step: compute `ids` at positions start .. start + len(ids) of its path.

    runs: (first slot, length) of the path's slots, at least up to the last of these tokens. wants_logits: whether the
    logits after the last token are asked for.
    """

    ids: Sequence[int]
    start: int
    extents: Sequence[tuple[int, int]]
    needs_logits: bool


class ForwardContext(Protocol):
    """What the attention function calls, once per layer and forward."""

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: AttentionOptions
    ) -> torch.Tensor:
        """q [1, Hq, T, Dk], k [1, Hkv, T, Dk], v [1, Hkv, T, Dv] of the new tokens -> [1, T, Hq, Dv]."""
        ...


_local = threading.local()


@contextmanager
def use_context(context: ForwardContext) -> Iterator[None]:
    """Makes `context` the one that forwards on this thread read."""
    _local.context = context
    try:
        yield
    finally:
        _local.context = None


def current_context() -> ForwardContext:
    context: ForwardContext | None = getattr(_local, "context", None)
    assert context is not None, "treechat's attention was called outside an engine: the model belongs to an engine"
    return context
