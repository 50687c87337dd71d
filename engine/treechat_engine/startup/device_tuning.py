"""Measure the kernels for a model's shapes on CUDA, once per device; later starts read a file."""

from __future__ import annotations

from collections.abc import Sequence

from treechat_engine.kvcache.slots import LayerShape
from treechat_engine.runner import ModelRunner
from treechat_kernels import dispatch


def tune_device(runner: ModelRunner, layer_shapes: Sequence[LayerShape]) -> None:
    """Give the runner its tiles. Does nothing without CUDA.

    Call it before steps are captured as graphs, because a graph keeps its kernels.
    """
    pool = runner.pool.k[0]
    if not (pool.is_cuda and dispatch.uses_triton(pool)):
        return
    # Imported here, because it loads Triton.
    from treechat_kernels.tuning.cases import AttentionShape, LinearShape
    from treechat_kernels.tuning.tuning import prepare

    num_q_heads = runner.model.config.get_text_config(decoder=True).num_attention_heads
    shapes = [AttentionShape(num_q_heads, *shape) for shape in layer_shapes if num_q_heads % shape[0] == 0]
    linears = [] if runner.fused is None else [LinearShape(*shape) for shape in runner.fused.row_shapes()]
    runner.tiles = prepare(shapes, linears, pool.dtype, runner.device)
