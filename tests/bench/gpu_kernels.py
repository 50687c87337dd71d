"""The attention kernels alone, against the bandwidth, torch's attention, and each other."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from tests.bench.gpu_common import Ceilings, Report, seconds
from treechat_kernels.decode_attention import decode_paths
from treechat_kernels.extend_attention import extend_paths
from treechat_kernels.layout import Layout
from treechat_kernels.linear import linear_row
from treechat_kernels.shared_prefix_attention import shared_paths

# (query heads, key heads, head dimension): those of the 0.5B and 8B shapes.
HEADS = ((14, 2, 64), (32, 8, 128))


def _pools(num_slots: int, heads: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    k, v = (torch.randn(num_slots, *heads[1:], device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return k, v


def decode(report: Report, limits: Ceilings) -> None:
    """One new token; the bytes are the keys and values of the path."""
    for heads in HEADS:
        for batch, kv_len in ((1, 1024), (1, 8192), (1, 32768), (1, 131072), (8, 8192), (16, 8192)):
            _decode(report, limits, heads, batch, kv_len)


def _decode(report: Report, limits: Ceilings, heads: tuple[int, int, int], batch: int, kv_len: int) -> None:
    num_q, num_kv, dim = heads
    pools = _pools(batch * kv_len, heads)
    q = torch.randn(batch, num_q, dim, device="cuda", dtype=torch.bfloat16)
    slots = torch.randperm(batch * kv_len, device="cuda")
    layout = Layout.build([kv_len] * batch, [1] * batch, "cuda")
    out = torch.empty_like(q)
    ours = seconds(lambda: decode_paths(out, q, *pools, slots, layout, layout.single, scaling=dim**-0.5))
    k, v = (pool.view(batch, kv_len, num_kv, dim).transpose(1, 2) for pool in pools)
    theirs = seconds(lambda: scaled_dot_product_attention(q[:, :, None], k, v, enable_gqa=True))
    num_bytes = 2 * batch * kv_len * num_kv * dim * 2
    report.row(
        "decode attention", heads=f"{num_q}/{num_kv}x{dim}", batch=batch, context=kv_len, us=ours * 1e6,
        of_bandwidth=num_bytes / ours / limits.bytes_per_s, sdpa_us=theirs * 1e6, faster=theirs / ours,
    )  # fmt: skip


def extend(report: Report, limits: Ceilings) -> None:
    """512 new tokens over cached ones; torch attends over contiguous keys with a mask made beforehand."""
    for heads in HEADS:
        for cached in (1024, 4096, 16384, 65536):
            _extend(report, limits, heads, 512, cached)


def _extend(report: Report, limits: Ceilings, heads: tuple[int, int, int], num_new: int, cached: int) -> None:
    num_q, num_kv, dim = heads
    kv_len = cached + num_new
    pools = _pools(kv_len, heads)
    q = torch.randn(num_new, num_q, dim, device="cuda", dtype=torch.bfloat16)
    slots = torch.randperm(kv_len, device="cuda")
    layout = Layout.build([kv_len], [num_new], "cuda")
    out = torch.empty_like(q)
    ours = seconds(lambda: extend_paths(out, q, *pools, slots, layout, layout.several, scaling=dim**-0.5))
    k, v = (pool[None].transpose(1, 2).repeat_interleave(num_q // num_kv, 1) for pool in pools)
    mask = torch.ones(num_new, kv_len, dtype=torch.bool, device="cuda").tril(cached)
    q_heads = q.transpose(0, 1)[None].contiguous()
    theirs = seconds(lambda: scaled_dot_product_attention(q_heads, k, v, attn_mask=mask))
    flop = 4 * num_q * dim * num_new * (cached + num_new / 2)
    report.row(
        "extend attention", heads=f"{num_q}/{num_kv}x{dim}", new=num_new, cached=cached, us=ours * 1e6,
        of_matrix_rate=flop / ours / limits.flop_per_s, sdpa_us=theirs * 1e6, faster=theirs / ours,
    )  # fmt: skip


def shared(report: Report, _limits: Ceilings) -> None:
    """Siblings with 64 tokens of their own each: the prefix read once, against once per sibling."""
    for heads in HEADS:
        for siblings, prefix in ((2, 2048), (4, 2048), (8, 2048), (16, 2048), (4, 16384), (16, 16384), (32, 32768)):
            _shared(report, heads, siblings, prefix)


def _shared(report: Report, heads: tuple[int, int, int], siblings: int, prefix: int, own: int = 64) -> None:
    num_q, num_kv, dim = heads
    pools = _pools(prefix + siblings * own, heads)
    common = torch.arange(prefix)
    paths = [part for i in range(siblings) for part in (common, torch.arange(own) + prefix + i * own)]
    slots = torch.cat(paths).cuda()
    q = torch.randn(siblings, num_q, dim, device="cuda", dtype=torch.bfloat16)
    out = torch.empty_like(q)
    everyone = list(range(siblings))
    layout = Layout.build([prefix + own] * siblings, [1] * siblings, "cuda", [(everyone, prefix)])
    args = (out, q, *pools, slots, layout)
    once = seconds(lambda: shared_paths(*args, layout.shared[0], scaling=dim**-0.5))
    each = seconds(lambda: decode_paths(*args, layout.single, scaling=dim**-0.5))
    report.row(
        "shared prefix", heads=f"{num_q}/{num_kv}x{dim}", siblings=siblings, prefix=prefix, us=once * 1e6,
        plain_us=each * 1e6, faster=each / once,
    )  # fmt: skip


def linear(report: Report, limits: Ceilings) -> None:
    """One row through the matrices of the 0.5B and 8B shapes, which take turns so that none stays in the cache."""
    for out_len, in_len in (
        (1152, 896),
        (896, 896),
        (9728, 896),
        (896, 4864),
        (6144, 4096),
        (28672, 4096),
        (4096, 14336),
    ):
        _linear(report, limits, out_len, in_len)


def _linear(report: Report, limits: Ceilings, out_len: int, in_len: int) -> None:
    num_bytes = 2 * out_len * in_len
    num = max(1, min(16, (1 << 28) // num_bytes))
    weights = [torch.randn(out_len, in_len, device="cuda", dtype=torch.bfloat16) for _ in range(num)]
    x = torch.randn(1, in_len, device="cuda", dtype=torch.bfloat16)
    ours = seconds(lambda: [linear_row(x, weight) for weight in weights]) / num
    theirs = seconds(lambda: [torch.nn.functional.linear(x, weight) for weight in weights]) / num
    report.row(
        "linear of one row", out=out_len, into=in_len, us=ours * 1e6,
        of_bandwidth=num_bytes / ours / limits.bytes_per_s, cublas_us=theirs * 1e6, faster=theirs / ours,
    )  # fmt: skip


PARTS = (decode, extend, shared, linear)
