"""Chooses tiles by measuring them on the device, once: the choice is kept in a file of the cache directory.

A candidate is taken where it computes the same and is clearly faster than the fixed tile. There is a budget of seconds
per start, of which compiling takes most: what was not measured within it keeps its fixed tile, and is measured at the
next start. TREECHAT_TUNE=off measures nothing.
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
# Of a fixed tile's time: a candidate must stay below, as timings are not exact.
_FASTER = 0.97
# Of the largest value: 16-bit results that were summed in another order differ by less.
_TOLERANCE = 2e-2
logger = logging.getLogger(__name__)


def tune(
    cases: Iterable[Case], found: TuningResult, seconds: Timer, clock: Callable[[], float], deadline: float
) -> bool:
    """Adds to `found` a tile for each case that has none, until the deadline. Returns whether all have one.

    What was found is in use while the next is measured.
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
    """The tile to take, None where time is up before all were measured."""
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
    """What a candidate takes, None where it cannot be launched or computes something else."""
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
    """Measures what `found` lacks and adds it there. Returns whether nothing is missing."""
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
    """One shape per tile: the one whose weight is largest."""
    found: dict[tuple[int, bool], LinearShape] = {}
    for shape in shapes:
        key = shape.in_len, shape.is_gated
        if key not in found or shape.out_len > found[key].out_len:
            found[key] = shape
    return list(found.values())


def prepare(
    shapes: Sequence[AttentionShape], linears: Sequence[LinearShape], dtype: torch.dtype, device: torch.device
) -> Tiles:
    """On CUDA: the tiles of this device, of which those that these shapes lack are measured, and kept for next time.
    Elsewhere there are none.

    What cannot be measured, for want of memory or time, keeps its fixed tile. Rates of sharing are taken over.
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
                logger.info("the kernels are not all measured yet: the next start goes on")
    except torch.OutOfMemoryError:
        logger.warning("there is no memory to measure the kernels in: they keep their fixed tiles")
    finally:
        if known != (found.rates, len(found.tiles)):
            tuning_file.save(path, who, found)
        torch.cuda.empty_cache()
    return found.tiles


def _graph_seconds(run: Callable[[], object]) -> float:
    """The median time of launches replayed from a graph, as the engine launches them."""
    from triton.testing import do_bench_cudagraph

    return float(do_bench_cudagraph(run, rep=10, return_mode="median")) / 1e3
