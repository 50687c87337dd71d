"""CUDA graphs of decoding: a step of one new token per sequence as one launch, including the choice of the tokens.

Tables on the device hold the input of a step: per row the token, its position, the path's length, the slot of the
token's KV, and the slots of the path. Batches are padded to a few sizes, and lengths to powers of two of splits. A
graph is captured at the first use of each pair. Padded rows write to the dummy slot. At its end a graph advances its
tables by the token that it chose. The next step of the same rows can therefore be launched before the host reads this
one's tokens, so the host works while the device computes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from treechat_engine.attention.context import Work
from treechat_engine.attention.device_attention import TableContext
from treechat_engine.graphs.capture import CaptureError, SlotTable, capture, num_splits, pin_for_copy
from treechat_engine.graphs.sampling import DrawTable, SamplingMode
from treechat_kernels import dispatch
from treechat_kernels.cpu.path_attention import clip_extents
from treechat_kernels.layout import SPLIT_LEN, Layout, shared_prefixes
from treechat_kernels.prefix_sharing import Siblings, sharing_is_faster

if TYPE_CHECKING:
    from treechat_engine.kvcache.slots import SlotPool
    from treechat_engine.sampling.sampler import Sampler

logger = logging.getLogger(__name__)

_BATCHES = (1, 2, 4, 8, 16, 32, 64)
# Rows of the table of scalars.
_ID, _POSITION, _KV_LEN, _WRITE_SLOT = range(4)

# ids, positions [B], a context -> logits [B, vocabulary].
Forward = Callable[[torch.Tensor, torch.Tensor, TableContext], torch.Tensor]


class DecodeGraph(NamedTuple):
    """A graph and its output.

    graph: the captured launches.
    logits: filled by each replay.
    context: kept because the graph reads its tables.
    """

    graph: torch.cuda.CUDAGraph
    logits: torch.Tensor
    context: TableContext


class DecodeKey(NamedTuple):
    """The properties that a graph is captured for.

    batch: rows.
    splits: splits of the longest path.
    shares: whether rows read a common prefix once.
    mode: how it chooses the next tokens.
    """

    batch: int
    splits: int
    shares: bool
    mode: SamplingMode


class Step:
    """A launched step.

    key: its graph.
    logits: [rows, vocabulary]; the next launch overwrites them. If the graph sampled, `launch_next` first makes a copy,
        for rows that the graph could not settle.
    picked: [3, rows] on the host: ids, bits of the log-probabilities, whether settled; valid after `done`.
    done: the end of the copy to `picked`; None without CUDA.
    """

    def __init__(
        self, key: DecodeKey, logits: torch.Tensor, picked: torch.Tensor, done: torch.cuda.Event | None
    ) -> None:
        self.key = key
        self.logits = logits
        self._picked = picked
        self._done = done

    def tokens(self) -> list[tuple[int, float] | None]:
        """Return the chosen token of each row and its log-probability; None if the host has to choose.

        Waits for the device.
        """
        if self._done is not None:
            self._done.synchronize()
        ids, logprobs = self._picked[0].tolist(), self._picked[1].view(torch.float32)[::2].tolist()
        settled = self._picked[2].tolist() if self.key.mode else [1] * len(ids)
        rows = zip(ids, logprobs, settled, strict=True)
        return [(token_id, logprob) if is_settled else None for token_id, logprob, is_settled in rows][
            : len(self.logits)
        ]


class DecodeGraphs:
    """Captured steps over a slot pool. Always used on the same thread.

    problem: why no more graphs are captured; None if there is no problem.
    sampling_problem: the same for graphs that sample.
    """

    def __init__(
        self,
        pool: SlotPool,
        forward: Forward,
        vocab_size: int,
        num_q_heads: int,
        max_batch: int,
        max_len: int,
        memory: Any,
    ) -> None:
        """Make an empty set of graphs.

        pool: the slots.
        forward: the forward to capture.
        vocab_size: ids are below it.
        num_q_heads: heads of the queries.
        max_batch: most rows of a step.
        max_len: the longest path in tokens.
        memory: the pool that graphs share.
        """
        self._pool = pool
        self._num_q_heads = num_q_heads
        self._forward = forward
        self._batches = [size for size in _BATCHES if size < max_batch] + [max_batch]
        self._max_len = max_len
        device = pool.k[0].device
        self._slots = SlotTable(max_batch, max_len + 1, pool.dummy, device)
        self._scalars = torch.zeros(4, max_batch, dtype=torch.int64, device=device)
        self._shared_splits = torch.zeros(1, dtype=torch.int64, device=device)
        self._starts = torch.arange(max_batch + 1, device=device) * (max_len + 1)
        self._draws = DrawTable(max_batch, vocab_size, device)
        # Per row: the chosen id, the bits of its log-probability, and whether it is settled.
        self._picked = torch.zeros(3, max_batch, dtype=torch.int64, device=device)
        self.captured_graphs: dict[DecodeKey, DecodeGraph] = {}
        self._memory = memory
        self.problem: str | None = None
        self.sampling_problem: str | None = None

    @property
    def num_captured(self) -> int:
        return len(self.captured_graphs)

    def launch(self, batch: Sequence[Work], samplers: Sequence[Sampler] | None) -> Step | None:
        """Start a step in which each sequence has one new token. None if it cannot be captured: see `problem`.

        samplers: how each row's token is chosen; None: the caller chooses from the logits.
        """
        kv_lens = [work.start + 1 for work in batch]
        if self.problem is not None or len(batch) > self._batches[-1] or max(kv_lens) > self._max_len:
            return None
        mode = (
            SamplingMode.GREEDY if samplers is None or self.sampling_problem is not None else SamplingMode.of(samplers)
        )
        shared = self._common_splits(batch, kv_lens)
        key = self._key(len(batch), max(kv_lens), shared > 0, mode)
        if mode and not self._has(key):
            key = key._replace(mode=SamplingMode.GREEDY)
        if not self._has(key):
            return None
        if key.mode and samplers is not None:
            self._draws.fill(samplers, key.batch, key.mode)
        for row, work in enumerate(batch):
            self._slots.fill(row, work.extents)
        padding = key.batch - len(batch)
        dummy = self._pool.dummy
        table = [
            [work.ids[0] for work in batch] + [0] * padding,
            [work.start for work in batch] + [0] * padding,
            kv_lens + [1] * padding,
            [_slot_at(work.extents, work.start) for work in batch] + [dummy] * padding,
            [shared] * key.batch,
        ]
        device = self._scalars.device
        packed = pin_for_copy(torch.tensor(table), device).to(device, non_blocking=True)
        self._scalars[:, : key.batch] = packed[:4]
        self._shared_splits.copy_(packed[4, :1])
        return self.replay(key, len(batch))

    def launch_next(self, last: Step, batch: Sequence[Work], samplers: Sequence[Sampler]) -> Step | None:
        """Start the step after `last`, whose tokens need not be read: its rows continue with the tokens that it chose.

        Returns None if another graph is needed.

        last: the step before.
        batch: the same sequences with `start` advanced; their ids are ignored.
        samplers: how each row's token is chosen.
        """
        max_len = max(work.start + 1 for work in batch)
        if max_len > last.key.splits * SPLIT_LEN or max_len > self._max_len:
            return None
        for row, work in enumerate(batch):
            self._slots.fill(row, work.extents)
        if last.key.mode:
            last.logits = last.logits.clone()
            self._draws.fill_ahead(samplers)
        return self.replay(last.key, len(batch))

    def replay(self, key: DecodeKey, num_rows: int) -> Step:
        captured = self.captured_graphs[key]
        captured.graph.replay()
        on_cuda = self._scalars.is_cuda
        picked = torch.empty(3, key.batch, dtype=torch.int64, pin_memory=on_cuda)
        picked.copy_(self._picked[:, : key.batch], non_blocking=True)
        done = torch.cuda.Event() if on_cuda else None  # type: ignore[no-untyped-call]
        if done is not None:
            done.record()
        return Step(key, captured.logits[:num_rows], picked, done)

    def _key(self, num_rows: int, max_kv_len: int, shares: bool, mode: SamplingMode) -> DecodeKey:
        return DecodeKey(next(size for size in self._batches if size >= num_rows), num_splits(max_kv_len), shares, mode)

    def _has(self, key: DecodeKey) -> bool:
        """Return whether the graph exists, or can be captured now."""
        return key in self.captured_graphs or self._capture(key)

    def _common_splits(self, batch: Sequence[Work], kv_lens: Sequence[int]) -> int:
        """Return the splits that all sequences have in common; 0 if reading them once is not faster."""
        if len(batch) == 1:
            return 0
        groups = shared_prefixes([work.extents for work in batch], kv_lens, [1] * len(batch))
        if len(groups) != 1 or len(groups[0][0]) < len(batch):
            return 0
        k, v = self._pool.k[0], self._pool.v[0]
        token_bytes = (k.stride(0) + v.stride(0)) * k.element_size()
        length = groups[0][1]
        is_faster = sharing_is_faster(Siblings(len(batch), length, self._num_q_heads, token_bytes))
        return length // SPLIT_LEN if is_faster else 0

    def _capture(self, key: DecodeKey) -> bool:
        """Capture the graph with padding in all rows. If that fails, store the problem and return False."""
        rows = slice(0, key.batch)
        self._scalars[:, rows] = torch.tensor([[0], [0], [1], [self._pool.dummy]], device=self._scalars.device)
        self._shared_splits.zero_()
        self._slots.clear()
        layout = Layout.of_tables(
            self._starts[: key.batch + 1],
            self._scalars[_KV_LEN, rows],
            key.splits * SPLIT_LEN,
            self._shared_splits if key.shares else None,
        )
        self._draws.prepare(key.mode)
        context = TableContext(self._pool, self._slots.flat, self._scalars[_WRITE_SLOT, rows], layout)
        try:
            graph, logits = capture(lambda: self._run(key, context), self._memory)
        except CaptureError as error:
            if key.mode:
                self.sampling_problem = str(error)
                logger.warning("sampling outside of CUDA graphs: %s", error)
            else:
                self.problem = str(error)
                logger.warning("decoding without CUDA graphs: %s", error)
            return False
        self.captured_graphs[key] = DecodeGraph(graph, logits, context)
        return True

    def _run(self, key: DecodeKey, context: TableContext) -> torch.Tensor:
        """Run the forward, choose the tokens, and advance the tables."""
        rows = slice(0, key.batch)
        scalars = self._scalars[:, rows]
        logits = self._forward(scalars[_ID], scalars[_POSITION], context)
        picked = self._picked[:, rows]
        token, logprob = dispatch.pick(logits)
        if key.mode:
            token, logprob, settled = self._draws.choose(logits, token, logprob, key.mode)
            picked[2].copy_(settled)
        picked[0].copy_(token)
        picked[1].view(torch.float32)[::2].copy_(logprob)
        self._advance_tables(scalars, token)
        return logits

    def _advance_tables(self, scalars: torch.Tensor, token: torch.Tensor) -> None:
        """Make the chosen tokens the next input. Padded rows, which write to the dummy slot, do not change."""
        grows = (scalars[_WRITE_SLOT] != self._pool.dummy).long()
        scalars[_ID].copy_(token)
        scalars[_POSITION].add_(grows)
        following = self._slots.flat.index_select(0, self._starts[: scalars.shape[1]] + scalars[_KV_LEN])
        scalars[_WRITE_SLOT].copy_(torch.where(grows.bool(), following, self._pool.dummy))
        scalars[_KV_LEN].add_(grows)


def _slot_at(extents: Sequence[tuple[int, int]], position: int) -> int:
    """Return the slot of the path's token at `position`."""
    return clip_extents(extents, position, position + 1)[0][0]
