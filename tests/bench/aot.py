"""Compile the kernels for GPUs that this machine lacks, and print registers, spills and shared memory.

    python tests/bench/aot.py                       # every variant for sm_80, sm_90, sm_100
    python tests/bench/aot.py --arch 89 --few       # the largest of each kind, for one chip
    python tests/bench/aot.py --candidates          # the candidate tiles, and early launches
    python tests/bench/aot.py --seconds 300         # stop then; the same command continues there

It calls the launchers themselves on tensors in host memory, with a driver that only names a chip. Triton's cache
(TRITON_CACHE_DIR) keeps the compiled kernels for the next run. About 330 kernels per chip take 6 minutes of one core.

Exits with 1 if a kernel spills more than SPILL_ALLOWANCE bytes or needs more shared memory than a block can have, with
3 if time ran out. Most kernels spill nothing, the worst 24 bytes (triton 3.9.0). The fixed tiles come from this script,
and for sm_90 from measurements on an H100. `pytest -m slow tests/kernels/test_tuning.py` runs `--candidates`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from treechat_kernels.decode_attention import decode_attention, merge_key, split_key
from treechat_kernels.extend_attention import extend_attention, extend_key
from treechat_kernels.gather_scatter import gather_slots, scatter_slots
from treechat_kernels.layout import SPLIT_LEN
from treechat_kernels.linear import linear_key, linear_row
from treechat_kernels.rms_norm import rms_norm
from treechat_kernels.rotary import rotary
from treechat_kernels.sample import pick
from treechat_kernels.shared_prefix_attention import shared_prefix_attention
from treechat_kernels.silu_mul import silu_mul
from treechat_kernels.tiles import LAUNCH, Tile, TileKey, force_tile
from treechat_kernels.tuning.candidates import candidates
from treechat_kernels.write_kv import rotate_and_write, write_kv

# Bytes of shared memory per block (CUDA programming guide, table of compute capabilities).
SHARED_LIMIT = {80: 166_912, 86: 101_376, 89: 101_376, 90: 232_448, 100: 232_448, 120: 101_376}
# Bytes per thread. ptxas spills a few to fit one more block, in one merge at 40 of 255 registers. A tile that is too
# large spills hundreds.
SPILL_ALLOWANCE = 32
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
DIMS = [(64, 64), (80, 80), (96, 96), (112, 112), (128, 128), (192, 128), (192, 192), (256, 256)]

# (name, call of a launcher).
Variant = tuple[str, Callable[[], object]]


class KernelResources(NamedTuple):
    """The resources of one compiled kernel.

    variant: the name of the call that launched it.
    kernel: its name.
    arch: the chip.
    num_registers: per thread.
    spilled: bytes per thread.
    shared: bytes of shared memory per block.
    """

    variant: str
    kernel: str
    arch: int
    num_registers: int
    spilled: int
    shared: int

    @property
    def fits(self) -> bool:
        return self.spilled <= SPILL_ALLOWANCE and self.shared <= SHARED_LIMIT[self.arch]


class NoDevice:
    """A driver that names a chip, so Triton can compile for it without the device."""

    def __init__(self, arch: int) -> None:
        self.target = GPUTarget("cuda", arch, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return self.target.arch

    def get_current_stream(self, device: int) -> int:
        return 0


def variants(few: bool = False, dtypes: Sequence[str] = tuple(DTYPES)) -> Iterator[Variant]:
    """Yield the launches of an engine. few: one of each kind, the largest tiles among them."""
    for name in dtypes:
        dtype = DTYPES[name]
        # The 16-bit types differ in one instruction and head groups in one divisor: not all combinations are compiled.
        dims = DIMS if name != "fp16" else DIMS[:1]
        shapes = [(dim, 4) for dim in dims] + [((128, 128), group) for group in (1, 7, 71)]
        if few:
            shapes = [((256, 256), 4)] if name != "fp16" else [((64, 64), 7)]
        for dim, group in shapes:
            for has_options in (True,) if few else (False, True):
                yield from _attention(name, dtype, dim, group, has_options)
        if not few or name == "bf16":
            yield from _small(name, dtype, few)


def _attention(
    dtype_name: str, dtype: torch.dtype, dims: tuple[int, int], group: int, has_options: bool
) -> Iterator[Variant]:
    dim, v_dim = dims
    name = f"{dtype_name} {dim}/{v_dim} x{group}{', window, cap, sinks' if has_options else ''}"
    kv_lens = [SPLIT_LEN + 16] * 8
    slots = torch.zeros(sum(kv_lens), dtype=torch.int64)
    pools = torch.zeros(2, 2, dim, dtype=dtype), torch.zeros(2, 2, v_dim, dtype=dtype)
    options: dict[str, Any] = {"scaling": 0.3}
    if has_options:
        options |= {"sliding_window": 128, "softcap": 30.0, "sinks": torch.zeros(2 * group, dtype=dtype)}
    single, several = (torch.zeros(n, 2 * group, dim, dtype=dtype) for n in (8, 8 * 64))
    yield f"decode {name}", lambda: decode_attention(single, *pools, slots, kv_lens, **options)
    yield f"extend {name}", lambda: extend_attention(several, *pools, slots, kv_lens, [64] * 8, **options)
    yield f"shared {name}", lambda: shared_prefix_attention(single, *pools, slots, kv_lens, SPLIT_LEN, **options)


def _small(name: str, dtype: torch.dtype, few: bool) -> Iterator[Variant]:
    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(*shape, dtype=dtype)

    slots = torch.zeros(4, dtype=torch.int64)
    for dim in (8192,) if few else (576, 4096, 8192):
        x, weight = zeros(4, dim), zeros(dim)
        yield f"rms_norm {name} {dim}", lambda x=x, w=weight: rms_norm(x, w, 1e-5)
        yield f"rms_norm {name} {dim}, residual", lambda x=x, w=weight: rms_norm(x, w, 1e-5, residual=x, plus_one=True)
    yield f"rms_norm {name} by head", lambda: rms_norm(zeros(4, 10, 128), zeros(10, 128), 1e-5)
    for dim, width in ((256, 256),) if few else ((64, 64), (80, 32), (128, 128), (256, 256)):
        args = zeros(4, 10, dim), zeros(4, width), zeros(4, width)
        yield f"rotary {name} {width} of {dim}", lambda args=args: rotary(*args)
        for table in ("whole", "half"):
            options = {"interleaved": table == "half", "table": table}
            half = (args[0], zeros(4, width // 2), zeros(4, width // 2)) if table == "half" else args
            yield f"rotary {name} {width} of {dim}, {table} table", lambda a=half, o=options: rotary(*a, **o)
    for activation in ("gelu",) if few else ("silu", "gelu", "gelu_tanh"):
        yield f"{activation} {name}", lambda a=activation: silu_mul(zeros(4, 2 * 1536), a)
    pools = [zeros(8, 3, 64), zeros(8, 3, 64)]
    yield f"write_kv {name}", lambda: write_kv(*pools, zeros(4, 3, 64), zeros(4, 3, 64), slots)
    table, pairs = zeros(4, 64), zeros(4, 9, 64)
    yield f"rotate and write {name}", lambda: rotate_and_write(*pools, pairs, zeros(4, 3, 64), table, table, slots)
    for in_len, gate in ((896, "silu"),) if few else ((576, "silu"), (896, None), (4096, "gelu"), (14336, None)):
        row, weight, norm = zeros(1, in_len), zeros(64, in_len), (zeros(in_len), 1e-5) if in_len < 1024 else None
        yield f"linear row {name} {in_len}", lambda x=row, w=weight, n=norm, g=gate: linear_row(x, w, norm=n, gate=g)
    yield f"gather {name}", lambda: gather_slots(pools, slots)
    yield f"scatter {name}", lambda: scatter_slots(pools, slots, zeros(2, 4, 3, 64))
    yield f"pick {name}", lambda: pick(zeros(4, 49152))


def candidate_variants(few: bool = False) -> Iterator[Variant]:
    """Yield every candidate tile of the chip in use, with all options of its kernel. few: only for common shapes."""
    slots, group, few_dims = torch.zeros(512, dtype=torch.int64), 4, (128,)
    for dim in few_dims if few else (64, 128, 256):
        pools = [torch.zeros(2, 2, dim, dtype=torch.bfloat16) for _ in range(2)]
        options: dict[str, Any] = {"scaling": 0.3}
        options |= {"sliding_window": 128, "softcap": 30.0, "sinks": torch.zeros(2 * group, dtype=torch.bfloat16)}
        q = torch.zeros(16, 2 * group, dim, dtype=torch.bfloat16)
        for num_paths in (1, 8, 16):
            key = split_key(num_paths * group, dim, q.dtype)
            args = q[:num_paths], *pools, slots, [SPLIT_LEN + 1] * num_paths, SPLIT_LEN
            yield from _tile_variants(key, lambda args=args, options=options: shared_prefix_attention(*args, **options))
        decode_args = q[:1], *pools, slots, [SPLIT_LEN + 1]
        yield from _tile_variants(
            merge_key(dim), lambda args=decode_args, options=options: decode_attention(*args, **options)
        )
        extend_args = q, *pools, slots, [64], [16]
        yield from _tile_variants(
            extend_key(dim, q.dtype),
            lambda args=extend_args, options=options: extend_attention(*args, **options),
        )
    for in_len, gate in ((896, "silu"), (4864, None)) if few else ((576, "silu"), (896, "gelu"), (4864, None)):
        x, weight = (torch.zeros(n, in_len, dtype=torch.bfloat16) for n in (1, 64))
        norm = (x[0], 1e-5) if gate else None
        call = lambda x=x, w=weight, n=norm, g=gate: linear_row(x, w, norm=n, gate=g)  # noqa: E731
        yield from _tile_variants(linear_key(in_len, gate is not None), call)
    for tile in candidates(LAUNCH)[1:]:
        with force_tile(LAUNCH, tile):
            for name, early in variants(few=True, dtypes=["bf16"]):
                if name.startswith(("decode", "linear row", "rotate and write")):
                    yield f"early {name}", early


def _tile_variants(key: TileKey, call: Callable[[], object]) -> Iterator[Variant]:
    for tile in candidates(key):
        with force_tile(key, tile):
            yield f"{key}: {_described(tile)}", call


def _described(tile: Tile) -> str:
    return f"{tile.rows}x{tile.keys}, {tile.num_warps} warps, {tile.num_stages} stages"


def compile_all(arch: int, calls: Iterable[Variant]) -> Iterator[KernelResources]:
    """Compile the launches of these calls for one chip. A kernel that several calls launch is yielded once."""
    triton.runtime.driver.set_active(NoDevice(arch))
    launched: list[Any] = []
    run = JITFunction.run

    def record(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        launched.append(kernel)
        return kernel

    seen: set[str] = set()
    JITFunction.run = record
    try:
        for name, call in calls:
            launched.clear()
            call()
            for kernel in launched:
                if kernel.hash not in seen:
                    seen.add(kernel.hash)
                    yield _resources(name, arch, kernel)
    finally:
        JITFunction.run = run


def until(stop_at: float, calls: Iterable[Variant], left: list[str]) -> Iterator[Variant]:
    """Yield the calls that begin before `stop_at`; add the names of the others to `left`."""
    for name, call in calls:
        if time.monotonic() < stop_at:
            yield name, call
        else:
            left.append(name)


def _resources(variant: str, arch: int, kernel: Any) -> KernelResources:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(kernel.asm["cubin"])
        cubin.flush()
        report = subprocess.run([tool, "-res-usage", cubin.name], capture_output=True, text=True, check=True).stdout
    registers = int(re.search(r"REG:(\d+)", report).group(1))
    # Only what ptxas spills is on the stack of these kernels.
    spilled = int(re.search(r"STACK:(\d+)", report).group(1)) + int(re.search(r"LOCAL:(\d+)", report).group(1))
    return KernelResources(variant, kernel.metadata.name, arch, registers, spilled, kernel.metadata.shared)


def table(resources: Iterable[KernelResources]) -> str:
    """Return a Markdown table of the largest figures per kernel and chip: registers / bytes spilled / bytes shared."""
    most: dict[str, dict[int, tuple[int, int, int]]] = {}
    for used in resources:
        by_arch = most.setdefault(used.kernel, {})
        taken = (used.num_registers, used.spilled, used.shared)
        before = by_arch.get(used.arch, (0, 0, 0))
        by_arch[used.arch] = tuple(max(pair) for pair in zip(taken, before, strict=True))
    archs = sorted({arch for by_arch in most.values() for arch in by_arch})
    lines = [
        "| kernel | " + " | ".join(f"sm_{arch}" for arch in archs) + " |",
        "| --- |" + " --- |" * len(archs),
    ]
    for kernel in sorted(most):
        cells = [" / ".join(f"{value:,}" for value in most[kernel][arch]) for arch in archs]
        lines.append(f"| `{kernel}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", type=int, action="append", choices=list(SHARED_LIMIT), help="default: 80, 90 and 100")
    parser.add_argument("--few", action="store_true", help="only the largest of each kind")
    parser.add_argument("--dtype", action="append", choices=list(DTYPES), help="default: all three")
    parser.add_argument("--candidates", action="store_true", help="the candidate tiles")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no variant after this time")
    parser.add_argument("--table", action="store_true", help="end with a Markdown table of the largest figures")
    args = parser.parse_args()
    print(f"triton {triton.__version__}; registers and spilled bytes per thread, shared bytes per block")
    print(f"{'kernel':<16} {'variant':<44} {'chip':>6} {'registers':>9} {'spilled':>7} {'shared':>7}")
    stop_at, left, resources = time.monotonic() + args.seconds, [], []
    for arch in args.arch or (80, 90, 100):
        calls = candidate_variants(args.few) if args.candidates else variants(args.few, args.dtype or tuple(DTYPES))
        for used in compile_all(arch, until(stop_at, calls, left)):
            resources.append(used)
            print(
                f"{used.kernel:<16} {used.variant:<44} {'sm_' + str(arch):>6} {used.num_registers:>9} "
                f"{used.spilled:>7} {used.shared:>7}{'' if used.fits else '  DOES NOT FIT'}",
                flush=True,
            )
    if args.table:
        print(table(resources))
    bad = sum(not used.fits for used in resources)
    if left:
        print(f"time is up: {len(left)} variants are left, from {left[0]} on; run the same command to continue")
    print(f"{bad} do not fit" if bad else f"the {len(resources)} so far fit" if left else "all fit")
    return 1 if bad else 3 if left else 0


if __name__ == "__main__":
    sys.exit(main())
