"""Choose tiles by measuring them on the device, once: `tuning_file` keeps the choice.

A candidate is chosen if its results agree with those of the fixed tile, up to the rounding of 16 bits, and it takes at
most 97 % of that tile's time. At an engine's start on CUDA this takes at most 20 seconds, most of them for compiling.
Cases that are not measured in time keep their fixed tile and are measured at the next start.

The tiles belong to the engine that launches (`tiles`), so a deterministic engine in the same process keeps the fixed
ones. Tiles sum in different orders, so results may differ in their last bits from one choice to another; on one device
they stay the same as long as its file exists. A tile depends on head sizes, never on lengths or the batch; the split
length is not tuned.

One candidate starts a kernel of a decoding step while the previous one ends (programmatic dependent launch, from sm_90
on), so the weights of a linear layer are loaded before its input is ready. It is off until a device measures it faster;
none has yet.

TREECHAT_TUNE=off turns all of this off.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence

import torch

from treechat_kernels.prefix_sharing import Rates, fit, use_rates
from treechat_kernels.tiles import Tile, Tiles, force_tile, use_tiles
from treechat_kernels.tuning import tuning_file
from treechat_kernels.tuning.candidates import candidates
from treechat_kernels.tuning.cases import AttentionCases, AttentionShape, Case, LinearCases, LinearShape, Scale, Timer
from treechat_kernels.tuning.tuning_file import TuningResult

# Seconds of measuring per start.
BUDGET_S = 20.0
# A candidate must take less than this share of the fixed tile's time, since timings are not exact.
_FASTER = 0.97
# Share of the largest value. 16-bit results summed in another order differ by less.
_TOLERANCE = 2e-2
logger = logging.getLogger(__name__)


def tune(
    cases: Iterable[Case], found: TuningResult, seconds: Timer, clock: Callable[[], float], deadline: float
) -> bool:
    """Add a tile to `found` for each case without one, until the deadline. Return whether all cases have one.

    The tiles in `found` are used while the next case is measured.
    """
    with use_tiles(found.tiles):
        for case in cases:
            if case.key in found.tiles:
                continue
            tile = _fastest(case, seconds, lambda: clock() >= deadline)
            if tile is None:
                return False
            found.tiles[case.key] = tile
    return True


def _fastest(case: Case, seconds: Timer, is_late: Callable[[], bool]) -> Tile | None:
    """Return the tile to use; None if time runs out before all candidates are measured."""
    fixed, *others = candidates(case.key)
    if not others:
        return fixed
    if is_late():
        return None
    best = fixed
    with force_tile(case.key, fixed):
        expected = case.run().float()
        best_s = _FASTER * seconds(case.run)
    for tile in others:
        if is_late():
            return None
        with force_tile(case.key, tile):
            taken_s = _seconds(case, expected, seconds)
        if taken_s is not None and taken_s < best_s:
            best, best_s = tile, taken_s
    logger.info("%s: %s", case.key, best)
    return best


def _seconds(case: Case, expected: torch.Tensor, seconds: Timer) -> float | None:
    """Return the seconds of a candidate; None if it cannot be launched or computes something else."""
    try:
        got = case.run().float()
        largest = float(expected.abs().max())
        if not float((got - expected).abs().max()) <= _TOLERANCE * largest:
            logger.warning("a tile of %s computes something else and is not used", case.key)
            return None
        return seconds(case.run)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - triton raises its own errors for what a chip cannot launch
        logger.info("a tile of %s cannot be launched: %s", case.key, error)
        return None


def measure(
    shapes: Sequence[AttentionShape],
    linears: Sequence[LinearShape],
    dtype: torch.dtype,
    device: torch.device,
    found: TuningResult,
    seconds: Timer,
    clock: Callable[[], float] = time.monotonic,
    budget_s: float = BUDGET_S,
    scale: Scale | None = None,
) -> bool:
    """Measure the cases and rates that `found` lacks and add them. Return whether nothing is missing.

    shapes: attention layers; the first also gives the chain and the rates of sharing.
    linears: linear layers of one row.
    dtype, device: those of the model.
    found: the results, changed in place.
    seconds: measures a call.
    clock, budget_s: measuring stops when `clock` has advanced by this many seconds.
    scale: the size of the cases; None for the default.
    """
    scale = scale or Scale()
    deadline = clock() + budget_s
    all_linears = [LinearCases(shape, dtype, device, scale) for shape in _largest(linears)]
    for i, shape in enumerate(dict.fromkeys(shapes)):
        attention = AttentionCases(shape, dtype, device, scale)
        cases = [*attention.cases(), *(each.case() for each in all_linears)]
        if not tune(cases, found, seconds, clock, deadline):
            return False
        if i == 0:
            chain = attention.chain([each.turn for each in all_linears])
            if not tune([chain], found, seconds, clock, deadline):
                return False
            if found.rates is None:
                if clock() >= deadline:
                    return False
                with use_tiles(found.tiles):
                    found.rates = _rates(attention, seconds)
    return True


def _rates(attention: AttentionCases, seconds: Timer) -> Rates | None:
    rates = fit(attention.sharing(seconds))
    if rates.are_sound:
        use_rates(rates)
        return rates
    return None


def _largest(shapes: Sequence[LinearShape]) -> list[LinearShape]:
    """Return one shape per tile: the one with the largest weight."""
    found: dict[tuple[int, bool], LinearShape] = {}
    for shape in shapes:
        key = shape.in_len, shape.is_gated
        if key not in found or shape.out_len > found[key].out_len:
            found[key] = shape
    return list(found.values())


def prepare(
    shapes: Sequence[AttentionShape], linears: Sequence[LinearShape], dtype: torch.dtype, device: torch.device
) -> Tiles:
    """Return this device's tiles for a model of these shapes, measuring those that the file lacks; {} outside CUDA.

    New measurements go to the file. Cases that memory or time do not allow keep their fixed tile. The device's rates of
    sharing come into use.
    """
    if device.type != "cuda" or not tuning_file.is_on():
        return {}
    who = tuning_file.identity(device)
    path = tuning_file.file_of(who)
    found = tuning_file.load(path, who)
    if found.rates is not None:
        use_rates(found.rates)
    known = found.rates, len(found.tiles)
    try:
        with torch.inference_mode(), torch.random.fork_rng([device]):
            if not measure(shapes, linears, dtype, device, found, _graph_seconds):
                logger.info("some kernels are not measured yet: the next start continues")
    except torch.OutOfMemoryError:
        logger.warning("not enough memory to measure the kernels: they keep their fixed tiles")
    finally:
        if known != (found.rates, len(found.tiles)):
            tuning_file.save(path, who, found)
        torch.cuda.empty_cache()
    return found.tiles


def _graph_seconds(run: Callable[[], object]) -> float:
    """Return the median time of launches replayed from a graph, as the engine launches them."""
    from triton.testing import do_bench_cudagraph

    return float(do_bench_cudagraph(run, rep=10, return_mode="median")) / 1e3
