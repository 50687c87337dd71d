"""Measure the attention kernels alone: against the bandwidth, against torch's attention and against each other."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tests.bench import gpu_common, gpu_rivals
from tests.bench.gpu_common import Ceilings, Report
from treechat_kernels.decode_attention import decode_paths
from treechat_kernels.extend_attention import extend_paths
from treechat_kernels.layout import Layout
from treechat_kernels.linear import linear_row
from treechat_kernels.prefix_sharing import Siblings, sharing_is_faster
from treechat_kernels.shared_prefix_attention import shared_paths
from treechat_kernels.tiles import Tile, TileKey, use_tiles
from treechat_kernels.tuning.candidates import candidates
from treechat_kernels.tuning.cases import AttentionShape, LinearShape
from treechat_kernels.tuning.tuning import measure
from treechat_kernels.tuning.tuning_file import TuningResult

# (query heads, key heads, head dimension) of the 0.5B and 8B shapes.
HEADS = ((14, 2, 64), (32, 8, 128))
# (batch, context); (new, cached); (siblings, prefix); (out, in).
DECODES = ((1, 1024), (1, 8192), (1, 32768), (1, 131072), (8, 8192), (16, 8192))
EXTENDS = ((512, 1024), (512, 4096), (512, 16384), (512, 65536))
SHARED = ((2, 2048), (4, 2048), (8, 2048), (16, 2048), (4, 16384), (16, 16384), (32, 32768))
LINEARS = ((1152, 896), (896, 896), (9728, 896), (896, 4864), (6144, 4096), (28672, 4096), (4096, 14336))
GATED = {(9728, 896), (28672, 4096)}
# The most seconds for choosing tiles.
TUNING_S = 90.0
# The tiles that were chosen, which all later parts use.
CHOSEN_TILES: dict[TileKey, Tile] = {}
# The cases with FlexAttention, which takes seconds to compile.
FLEX = {(1, 8192), (1, 32768), (512, 16384)}


def _pools(num_slots: int, heads: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    k, v = (torch.randn(num_slots, *heads[1:], device=gpu_common.DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return k, v


def tuning(report: Report, _limits: Ceilings) -> None:
    """Choose this device's tiles, which all later parts use, and measure its rates of sharing."""
    found = TuningResult()
    linears = [LinearShape(*shape, shape in GATED) for shape in LINEARS]
    with torch.inference_mode():
        done = measure(
            [AttentionShape(*heads, heads[2]) for heads in HEADS], linears, torch.bfloat16,
            torch.device(gpu_common.DEVICE), found, gpu_common.seconds, budget_s=min(TUNING_S, report.left_s / 2),
        )  # fmt: skip
    CHOSEN_TILES.update(found.tiles)
    for key, tile in found.tiles.items():
        report.row("tuning", key=str(key), tile=list(tile), is_fixed=tile == candidates(key)[0])
    if found.rates is not None:
        report.row("rates of sharing", **found.rates._asdict())
    if not done:
        report.note("tuning: no time for the rest, which keep their fixed tiles")


def _microseconds(run: Callable[[], object]) -> dict[str, float]:
    """Return the microseconds with the chosen tiles and with the fixed ones."""
    chosen = gpu_common.seconds(run)
    with use_tiles({}):
        fixed = gpu_common.seconds(run)
    return {"us": chosen * 1e6, "fixed_us": fixed * 1e6}


def decode(report: Report, limits: Ceilings) -> None:
    """Measure one new token per path. The bytes are the keys and values of the path."""
    for heads in HEADS:
        for batch, kv_len in DECODES:
            if report.is_over("decode attention"):
                return
            _decode(report, limits, heads, batch, kv_len)


def _decode(report: Report, limits: Ceilings, heads: tuple[int, int, int], batch: int, kv_len: int) -> None:
    num_q, num_kv, dim = heads
    pools = _pools(batch * kv_len, heads)
    q = torch.randn(batch, num_q, dim, device=gpu_common.DEVICE, dtype=torch.bfloat16)
    slots = torch.randperm(batch * kv_len, device=gpu_common.DEVICE)
    layout = Layout.build([kv_len] * batch, [1] * batch, gpu_common.DEVICE)
    out = torch.empty_like(q)
    ours = _microseconds(lambda: decode_paths(out, q, *pools, slots, layout, layout.single, scaling=dim**-0.5))
    k, v = (pool.view(batch, kv_len, num_kv, dim).transpose(1, 2) for pool in pools)
    others = gpu_rivals.attention(q[:, :, None], k, v, (batch, kv_len) in FLEX and not report.is_late)
    num_bytes = 2 * batch * kv_len * num_kv * dim * 2
    report.row(
        "decode attention", heads=f"{num_q}/{num_kv}x{dim}", batch=batch, context=kv_len, **ours,
        of_bandwidth=num_bytes / ours["us"] * 1e6 / limits.bytes_per_s, **others, **_faster(others, ours["us"]),
    )  # fmt: skip


def _faster(others: dict[str, float | str], ours: float) -> dict[str, float]:
    """Return how many times as fast as torch's attention ours is, if torch's ran."""
    theirs = others["sdpa_us"]
    return {} if isinstance(theirs, str) else {"faster": theirs / ours}


def extend(report: Report, limits: Ceilings) -> None:
    """Measure 512 new tokens over cached ones. torch attends over contiguous keys with a mask made in advance."""
    for heads in HEADS:
        for num_new, cached in EXTENDS:
            if report.is_over("extend attention"):
                return
            _extend(report, limits, heads, num_new, cached)


def _extend(report: Report, limits: Ceilings, heads: tuple[int, int, int], num_new: int, cached: int) -> None:
    num_q, num_kv, dim = heads
    kv_len = cached + num_new
    pools = _pools(kv_len, heads)
    q = torch.randn(num_new, num_q, dim, device=gpu_common.DEVICE, dtype=torch.bfloat16)
    slots = torch.randperm(kv_len, device=gpu_common.DEVICE)
    layout = Layout.build([kv_len], [num_new], gpu_common.DEVICE)
    out = torch.empty_like(q)
    ours = _microseconds(lambda: extend_paths(out, q, *pools, slots, layout, layout.several, scaling=dim**-0.5))
    k, v = (pool[None].transpose(1, 2) for pool in pools)
    others = gpu_rivals.attention(q.transpose(0, 1)[None], k, v, (num_new, cached) in FLEX and not report.is_late)
    flop = 4 * num_q * dim * num_new * (cached + num_new / 2)
    report.row(
        "extend attention", heads=f"{num_q}/{num_kv}x{dim}", new=num_new, cached=cached, **ours,
        of_matrix_rate=flop / ours["us"] * 1e6 / limits.flop_per_s, **others, **_faster(others, ours["us"]),
    )  # fmt: skip


def shared(report: Report, _limits: Ceilings) -> None:
    """Measure siblings with 64 own tokens each: the prefix read once, once per sibling, and which way is chosen."""
    for heads in HEADS:
        for siblings, prefix in SHARED:
            if report.is_over("shared prefix"):
                return
            _shared(report, heads, siblings, prefix)


def _shared(report: Report, heads: tuple[int, int, int], siblings: int, prefix: int, own: int = 64) -> None:
    num_q, num_kv, dim = heads
    pools = _pools(prefix + siblings * own, heads)
    common = torch.arange(prefix)
    paths = [part for i in range(siblings) for part in (common, torch.arange(own) + prefix + i * own)]
    slots = torch.cat(paths).to(gpu_common.DEVICE)
    q = torch.randn(siblings, num_q, dim, device=gpu_common.DEVICE, dtype=torch.bfloat16)
    out = torch.empty_like(q)
    all_paths, token_bytes = list(range(siblings)), 2 * num_kv * dim * 2
    layout = Layout.build([prefix + own] * siblings, [1] * siblings, gpu_common.DEVICE, [(all_paths, prefix)])
    args = (out, q, *pools, slots, layout)
    once = _microseconds(lambda: shared_paths(*args, layout.shared[0], scaling=dim**-0.5))
    each = gpu_common.seconds(lambda: decode_paths(*args, layout.single, scaling=dim**-0.5))
    chosen = sharing_is_faster(Siblings(siblings, prefix, num_q, token_bytes))
    report.row(
        "shared prefix", heads=f"{num_q}/{num_kv}x{dim}", siblings=siblings, prefix=prefix, **once,
        plain_us=each * 1e6, faster=each / once["us"] * 1e6, chosen=chosen,
    )  # fmt: skip


def linear(report: Report, limits: Ceilings) -> None:
    """Measure one row through the matrices of the 0.5B and 8B shapes. Weights alternate, so none stays in the cache."""
    for out_len, in_len in LINEARS:
        if report.is_over("linear of one row"):
            return
        _linear(report, limits, out_len, in_len)


def _linear(report: Report, limits: Ceilings, out_len: int, in_len: int) -> None:
    num_bytes = 2 * out_len * in_len
    num = max(1, min(16, (1 << 28) // num_bytes))
    weights = [torch.randn(out_len, in_len, device=gpu_common.DEVICE, dtype=torch.bfloat16) for _ in range(num)]
    x = torch.randn(1, in_len, device=gpu_common.DEVICE, dtype=torch.bfloat16)
    ours = {key: us / num for key, us in _microseconds(lambda: [linear_row(x, each) for each in weights]).items()}
    theirs = gpu_common.seconds(lambda: [torch.nn.functional.linear(x, weight) for weight in weights]) / num
    report.row(
        "linear of one row", out=out_len, into=in_len, **ours,
        of_bandwidth=num_bytes / ours["us"] * 1e6 / limits.bytes_per_s, cublas_us=theirs * 1e6,
        faster=theirs / ours["us"] * 1e6,
    )  # fmt: skip


PARTS = (tuning, decode, extend, shared, linear)
