"""What several runs show together, with bootstrap intervals (Agarwal et al. 2021, arXiv 2108.13264)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from coterie import rng
from coterie.experiments.statistics.inference import LEVEL, Estimate

Floats = NDArray[np.float64]
_TRIMMED = 0.25
_RESAMPLES = 2000
_DRAWS = 10_000
_CHUNK = 250


@dataclass(frozen=True, slots=True)
class Band:
    """An aggregate over runs at each point, with the bounds of its 95 % interval: nan where the runs allow none."""

    value: Floats
    low: Floats
    high: Floats


def interquartile_mean(values: Floats, axis: int = 0) -> Floats:
    """The mean without the lowest and the highest quarter, whole values only.

    Of fewer than four values it is their mean; with one that is no number it is none.
    """
    count = values.shape[axis]
    cut = int(_TRIMMED * count)
    # Numbers that are none come last.
    ordered = np.moveaxis(np.sort(values, axis), axis, 0)
    mean: Floats = ordered[cut : count - cut].mean(0)
    return np.where(np.isnan(ordered[-1]), np.nan, mean)


def stratified_band(strata: Sequence[Floats], seed: int = 0, resamples: int = _RESAMPLES) -> Band:
    """Interquartile mean over all runs, with percentile intervals of a bootstrap that resamples runs in each stratum.

    Args:
        strata: For each task, values [runs, P]; a run is drawn with all of its points.
        seed: Of the draws.
        resamples: How many.

    Returns:
        Bounds are nan where no stratum has two runs, and all is nan at points where a run has no value.
    """
    every = np.concatenate(strata)
    value = interquartile_mean(every)
    if max(map(len, strata)) < 2:
        nothing = np.full_like(value, np.nan)
        return Band(value, nothing, nothing.copy())
    generator = rng.stream(seed, "stratified_band", len(every))
    drawn = [
        interquartile_mean(np.concatenate([_resample(values, size, generator) for values in strata], 1), axis=1)
        for size in _chunks(resamples)
    ]
    return Band(value, *_ends(np.concatenate(drawn)))


def improvement(
    ours: Sequence[Floats], theirs: Sequence[Floats], seed: int = 0, resamples: int = _RESAMPLES
) -> Estimate:
    """How probable it is that a run of one algorithm is above a run of another: 0.5 where they are alike.

    The share of all pairs in which it is, equals counting half, as in the Mann-Whitney test; the mean over tasks. The
    interval is a percentile bootstrap that resamples the runs of both in each task.

    Args:
        ours: For each task, values [runs].
        theirs: Likewise, in the same order of tasks.
        seed: Of the draws.
        resamples: How many.

    Returns:
        Bounds are nan where no task has two runs of both.
    """
    value = float(np.mean([_above(a[None], b[None])[0] for a, b in zip(ours, theirs, strict=True)]))
    if max(min(len(a), len(b)) for a, b in zip(ours, theirs, strict=True)) < 2:
        return Estimate(value, float("nan"), float("nan"))
    generator = rng.stream(seed, "improvement", sum(map(len, ours)), sum(map(len, theirs)))
    drawn = [
        np.mean(
            [
                _above(_resample(a, size, generator), _resample(b, size, generator))
                for a, b in zip(ours, theirs, strict=True)
            ],
            axis=0,
        )
        for size in _chunks(resamples)
    ]
    low, high = _ends(np.concatenate(drawn))
    return Estimate(value, float(low), float(high))


def permutation_test(ours: Sequence[Floats], theirs: Sequence[Floats], seed: int = 0, draws: int = _DRAWS) -> float:
    """How often an improvement as far from 0.5 arises where it does not matter which algorithm a run is of.

    Two-sided: runs of each task are dealt anew to the two. On one task this is the exact Mann-Whitney test (conditional
    on ties), as long as there are no more than 10 000 ways; otherwise, and over several tasks, ways are drawn, the one
    observed being one of them. Three runs against three can never give less than 0.1.

    Args:
        ours: For each task, values [runs].
        theirs: Likewise, in the same order of tasks.
        seed: Of the draws.
        draws: How many.
    """
    pairs = list(zip(ours, theirs, strict=True))
    generator = rng.stream(seed, "permutation_test", sum(map(len, ours)), sum(map(len, theirs)))
    shares = [_dealt(a, b, generator) for a, b in pairs]
    # Shares that are equal in exact arithmetic count as equal.
    reached = abs(float(np.mean([_above(a[None], b[None])[0] for a, b in pairs])) - 0.5) - 1e-9
    if len(pairs) == 1 and math.comb(len(ours[0]) + len(theirs[0]), len(ours[0])) <= _DRAWS:
        return float((np.abs(shares[0] - 0.5) >= reached).mean())
    drawn = np.mean([share[generator.integers(0, len(share), draws)] for share in shares], axis=0)
    return (int((np.abs(drawn - 0.5) >= reached).sum()) + 1) / (draws + 1)


def _dealt(a: Floats, b: Floats, generator: np.random.Generator) -> Floats:
    """The share of pairs above under every way to deal the runs to the two; under many ways where they are too many."""
    every, size = np.concatenate([a, b]), len(a)
    if math.comb(len(every), size) <= _DRAWS:
        chosen = np.asarray(list(combinations(range(len(every)), size)))
    else:
        chosen = np.argsort(generator.random((_DRAWS, len(every))), 1)[:, :size]
    is_ours = np.zeros((len(chosen), len(every)), bool)
    np.put_along_axis(is_ours, chosen, True, 1)
    row = np.broadcast_to(every, is_ours.shape)
    return _above(row[is_ours].reshape(-1, size), row[~is_ours].reshape(-1, len(b)))


def _above(a: Floats, b: Floats) -> Floats:
    """The share of pairs in which a [R, m] is above b [R, n], equals counting half: [R]."""
    gaps = a[:, :, None] - b[:, None, :]
    share: Floats = ((gaps > 0) + 0.5 * (gaps == 0)).mean((1, 2))
    return share


def _resample(values: Floats, times: int, generator: np.random.Generator) -> Floats:
    """As many of the runs [n, ...] as there are, drawn with replacement, so often: [times, n, ...]."""
    drawn: Floats = values[generator.integers(0, len(values), (times, len(values)))]
    return drawn


def _chunks(total: int) -> Iterator[int]:
    """How many to draw at a time, so that the draws fit into memory."""
    return (min(_CHUNK, total - begun) for begun in range(0, total, _CHUNK))


def _ends(drawn: Floats) -> tuple[Floats, Floats]:
    low, high = np.quantile(drawn, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], axis=0)
    return low, high
