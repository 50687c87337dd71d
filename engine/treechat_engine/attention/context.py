"""The input of one forward besides token ids: the slots that each sequence reads and writes.

The attention function gets the context from this module, not from model kwargs, which some model families drop. Each
thread has its own, so engines on several threads do not interfere. This is the only global of the package.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch


class AttentionOptions(NamedTuple):
    """How a layer attends. See treechat_kernels.attention_reference for the meaning of each option.

    scaling: multiplies the scores.
    sliding_window: tokens that a query sees, itself included; None: all.
    softcap: the soft cap of the scores; None: no cap.
    sinks: [Hq], the score of one more key per head that has no value; None: no such key.
    """

    scaling: float
    sliding_window: int | None
    softcap: float | None
    sinks: torch.Tensor | None


class SequenceSlice(NamedTuple):
    """One sequence of a packed batch.

    q_start: the place of its first new token in the batch.
    q_len: its new tokens, which are the last of kv_len.
    kv_len: the length of its path in tokens.
    extents: (first slot, length) of the path's slots, by position; may extend past kv_len.
    """

    q_start: int
    q_len: int
    kv_len: int
    extents: Sequence[tuple[int, int]]


class Work(NamedTuple):
    """One sequence's part in a step.

    ids: the tokens to compute.
    start: the position of the first one in the path.
    extents: (first slot, length) of the path's slots, by position, at least up to the last of these tokens.
    needs_logits: whether to return the logits after the last token.
    """

    ids: Sequence[int]
    start: int
    extents: Sequence[tuple[int, int]]
    needs_logits: bool


class ForwardContext(Protocol):
    """The interface that the attention function calls, once per layer and forward."""

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: AttentionOptions
    ) -> torch.Tensor:
        """q [1, Hq, T, Dk], k [1, Hkv, T, Dk], v [1, Hkv, T, Dv] of the new tokens -> [1, T, Hq, Dv]."""
        ...


_local = threading.local()


@contextmanager
def use_context(context: ForwardContext) -> Iterator[None]:
    """Make `context` the context of forwards on this thread."""
    _local.context = context
    try:
        yield
    finally:
        _local.context = None


def current_context() -> ForwardContext:
    context: ForwardContext | None = getattr(_local, "context", None)
    assert context is not None, "treechat's attention was called outside an engine: the model belongs to an engine"
    return context
