"""CUDA graphs of short prompts: the few new tokens of a jump or a fork over a cached path, as one launch.

An eager forward takes the host more than 10 ms for its launches, for any number of tokens: most of the time to the
first token. Lengths are padded to a few sizes. Padded tokens write to the dummy slot, and their results are not read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from treechat_engine.attention.context import Work
from treechat_engine.attention.device_attention import TableContext
from treechat_engine.graphs.capture import CaptureError, SlotTable, capture, num_splits, pin_for_copy
from treechat_kernels.cpu.path_attention import clip_extents, slot_tensor
from treechat_kernels.layout import SPLIT_LEN, Layout

if TYPE_CHECKING:
    from treechat_engine.kvcache.slots import SlotPool

logger = logging.getLogger(__name__)

# Padding to the next size at most doubles the tokens. Above the last size, a forward is long enough to hide its
# launches.
SIZES = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)

# Up to this many tokens the path is cut into splits, which is faster for a long path.
MAX_SPLIT_TOKENS = 64

# ids, positions [T], index [1], a context -> logits [1, vocabulary].
Forward = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, TableContext], torch.Tensor]


class PromptKey(NamedTuple):
    """The properties that a graph is captured for.

    size: tokens, with padding.
    splits: splits of the path if there are few tokens, else 0.
    """

    size: int
    splits: int


class PromptGraph(NamedTuple):
    """A graph, its input and its output.

    graph: the captured launches.
    logits: filled by each replay.
    table: [4 T + 5]: ids, positions and slots of the tokens, and the length of path that each sees; then the path's
        length, 0, the number of tokens, the last token, the path's splits.
    context: kept because the graph reads its other tables.
    """

    graph: torch.cuda.CUDAGraph
    logits: torch.Tensor
    table: torch.Tensor
    context: TableContext


class PromptGraphs:
    """Captured forwards of one sequence of several tokens. Always used on the same thread.

    problem: why no more graphs are captured; None if there is no problem.
    """

    def __init__(self, pool: SlotPool, forward: Forward, max_len: int, memory: Any) -> None:
        """Make an empty set of graphs.

        pool: the slots.
        forward: the forward to capture.
        max_len: the longest path in tokens.
        memory: the pool that graphs share.
        """
        self._pool = pool
        self._forward = forward
        self._max_len = max_len
        self._memory = memory
        self._slots = SlotTable(1, max_len + 1, pool.dummy, pool.k[0].device)
        self.captured_graphs: dict[PromptKey, PromptGraph] = {}
        self.problem: str | None = None

    @property
    def num_captured(self) -> int:
        return len(self.captured_graphs)

    def run(self, work: Work) -> torch.Tensor | None:
        """Return logits [1, vocabulary] after the last token, and write all KV; None if no graph can do it."""
        num_tokens, kv_len = len(work.ids), work.start + len(work.ids)
        size = next((size for size in SIZES if size >= num_tokens), None)
        if self.problem is not None or size is None or kv_len > self._max_len:
            return None
        key = PromptKey(size, num_splits(kv_len) if size <= MAX_SPLIT_TOKENS else 0)
        if key not in self.captured_graphs:
            try:
                self._capture(key)
            except CaptureError as error:
                self.problem = str(error)
                logger.warning("prompts without CUDA graphs: %s", self.problem)
                return None
        captured = self.captured_graphs[key]
        self._slots.fill(0, work.extents)
        table = torch.zeros(4 * size + 5, dtype=torch.int64)
        ids, positions, write_slots, seen = table[: 4 * size].view(4, size)
        ids[:num_tokens] = torch.tensor(work.ids)
        positions[:num_tokens] = torch.arange(work.start, kv_len)
        write_slots[:num_tokens] = slot_tensor(clip_extents(work.extents, work.start, kv_len))
        write_slots[num_tokens:] = self._pool.dummy
        seen.fill_(1)[:num_tokens] = torch.arange(work.start + 1, kv_len + 1)
        table[4 * size :] = torch.tensor([kv_len, 0, num_tokens, num_tokens - 1, -(-kv_len // SPLIT_LEN)])
        captured.table.copy_(pin_for_copy(table, captured.table.device), non_blocking=True)
        captured.graph.replay()
        return captured.logits.clone()

    def _capture(self, key: PromptKey) -> None:
        """Capture the forward of `key.size` tokens, with padding only."""
        self._slots.clear()
        size = key.size
        table = torch.zeros(4 * size + 5, dtype=torch.int64, device=self._pool.k[0].device)
        ids, positions, write_slots, seen = table[: 4 * size].view(4, size)
        write_slots.fill_(self._pool.dummy)
        seen.fill_(1)
        kv_len, q_starts, last, splits = torch.split(table[4 * size :], [1, 2, 1, 1])
        kv_len.fill_(1)
        q_starts[1] = 1
        splits.fill_(1)
        if key.splits:
            layout = Layout.of_few_new_tokens(seen, splits, key.splits * SPLIT_LEN)
        else:
            layout = Layout.of_new_tokens(kv_len, q_starts, size, self._max_len)
        context = TableContext(self._pool, self._slots.flat, write_slots, layout)
        graph, logits = capture(lambda: self._forward(ids, positions, last, context), self._memory)
        self.captured_graphs[key] = PromptGraph(graph, logits, table, context)
