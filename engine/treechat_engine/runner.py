"""The model, and one step of it: a ragged batch of tokens in, rows of logits out. Uses no request and no tree.

A reply's bits depend on the number of rows in its steps, which chooses the kernels of matrix products, and on a CPU on
the places of its slots. `EngineConfig.deterministic` removes both: each sequence is computed alone, in whole chunks,
the last token of a prompt alone, and the CPU first copies a path together. Tokens and log-probabilities then depend
only on prompt, parameters, seed and the KV that was cached for the prompt at the start. That KV is bitwise the same if
it was computed in the same chunks. A regenerated reply therefore repeats itself. A prompt whose beginning was evicted,
or computed as part of a reply, may differ. Further conditions: the same machine, libraries and `num_threads`, no step
that runs out of memory, and no request that has to give its slots back.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from treechat_engine.attention.attention import PagedContext
from treechat_engine.attention.context import SequenceSlice, Work, use_context
from treechat_engine.attention.device_attention import TableContext
from treechat_engine.graphs.decoding import DecodeGraphs, Step
from treechat_engine.graphs.prompts import PromptGraphs
from treechat_engine.kvcache.slots import SlotPool
from treechat_engine.model.decoder import FusedDecoder
from treechat_engine.sampling.sampler import Sampler
from treechat_kernels import dispatch
from treechat_kernels.tiles import Tiles, use_tiles

# Tokens. Longer paths are decoded without a graph, so that the tables of slots stay small.
MAX_GRAPH_LEN = 1 << 17


class ModelRunner:
    """Run steps of a model over a slot pool: by the fused forward if `fused` is set, else by that of transformers.

    One thread at a time.
    """

    def __init__(self, model: Any, pool: SlotPool) -> None:
        self.model = model
        self.pool = pool
        self.device = pool.k[0].device
        self._uses_tables = dispatch.uses_tables(self.device)
        self.fused: FusedDecoder | None = None
        self.graphs: DecodeGraphs | None = None
        self.prompt_graphs: PromptGraphs | None = None
        self.vocab_size: int = model.config.get_text_config(decoder=True).vocab_size
        # Measured launch parameters of the kernels; the fixed ones apply if it is empty.
        self.tiles: Tiles = {}
        # Compute each sequence of a step alone: see EngineConfig.
        self.deterministic = False
        self._picks_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

    @torch.inference_mode()
    def step(self, batch: Sequence[Work]) -> torch.Tensor:
        """Write the KV of all tokens to their slots. Returns logits [rows, vocabulary] of the works that need them."""
        with use_tiles(self.tiles):
            if self.deterministic and len(batch) > 1:
                return torch.cat([self._step([work]) for work in batch])
            return self._step(batch)

    def _step(self, batch: Sequence[Work]) -> torch.Tensor:
        if self.deterministic and len(batch[0].ids) == 1 and (launched := self.launch(batch, None)) is not None:
            return launched.logits.clone() if batch[0].needs_logits else launched.logits[:0]
        if self.prompt_graphs is not None and len(batch) == 1 and len(batch[0].ids) > 1:
            logits = self.prompt_graphs.run(batch[0])
            if logits is not None:
                return logits if batch[0].needs_logits else logits[:0]
        ids: list[int] = []
        positions: list[int] = []
        rows: list[int] = []
        sequences: list[SequenceSlice] = []
        for work in batch:
            stop = work.start + len(work.ids)
            sequences.append(SequenceSlice(len(ids), len(work.ids), stop, work.extents))
            ids.extend(work.ids)
            positions.extend(range(work.start, stop))
            if work.needs_logits:
                rows.append(len(ids) - 1)
        packed = torch.tensor([ids, positions], device=self.device)
        context: TableContext | PagedContext
        if self._uses_tables:
            context = TableContext.of_step(self.pool, sequences)
        else:
            context = PagedContext(self.pool, sequences, gathers_paths=self.deterministic)
        index = None if len(rows) == len(ids) else torch.tensor(rows, dtype=torch.long, device=self.device)
        if self.fused is not None:
            return self.fused(packed[0], packed[1], max(positions) + 1, index, context)
        with use_context(context):
            return self.forward_model(packed[:1], packed[1:], index)

    def use_graphs(self, max_batch: int, max_len: int) -> None:
        """From now on, use CUDA graphs: in `launch` for one token per sequence, in `step` for one prompt.

        max_batch: most sequences in a step.
        max_len: longest path in tokens.
        """
        max_len = min(max_len, MAX_GRAPH_LEN)
        if self.fused is not None:
            with torch.inference_mode():
                self.fused.reserve(max_len + 1)
        memory = torch.cuda.graph_pool_handle()
        num_q_heads = self.model.config.get_text_config(decoder=True).num_attention_heads
        self.graphs = DecodeGraphs(
            self.pool, self._forward_rows, self.vocab_size, num_q_heads, max_batch, max_len, memory
        )
        if self.fused is not None:
            self.prompt_graphs = PromptGraphs(self.pool, self._forward_prompt, max_len, memory)

    @torch.inference_mode()
    def launch(self, batch: Sequence[Work], samplers: Sequence[Sampler] | None) -> Step | None:
        """Start a step with one token per sequence, all of which need logits. None if there is no graph for it.

        samplers: how the graph chooses the next tokens; None: the caller chooses from the logits.
        """
        with use_tiles(self.tiles):
            return None if self.graphs is None else self.graphs.launch(batch, samplers)

    def _forward_rows(self, ids: torch.Tensor, positions: torch.Tensor, context: TableContext) -> torch.Tensor:
        if self.fused is not None:
            return self.fused(ids, positions, 0, None, context)
        with use_context(context):
            return self.forward_model(ids[None], positions[None], None)

    def _forward_prompt(
        self, ids: torch.Tensor, positions: torch.Tensor, index: torch.Tensor, context: TableContext
    ) -> torch.Tensor:
        assert self.fused is not None, "graphs of prompts without the fused forward"
        return self.fused(ids, positions, 0, index, context)

    def forward_model(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor, index: torch.Tensor | None
    ) -> torch.Tensor:
        """input_ids, position_ids [1, T] -> logits [rows, vocabulary] of the tokens in `index`; None: all tokens."""
        kwargs: dict[str, Any] = {}
        if self._picks_logits:
            kwargs["logits_to_keep"] = 0 if index is None else index
        logits: torch.Tensor = self.model(
            input_ids=input_ids, position_ids=position_ids, use_cache=False, return_dict=True, **kwargs
        ).logits[0]
        return logits if self._picks_logits or index is None else logits[index]
