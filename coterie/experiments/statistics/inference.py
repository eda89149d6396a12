"""Intervals and tests. Intervals are 95 %, tests two-sided at 5 %, and what is compared is paired by item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from coterie import rng

LEVEL = 0.95
ALPHA = 1 - LEVEL
POWER = 0.8
_CHUNK = 500
_MOST_ENUMERATED = 14
"""Differences of which every combination of signs is looked at: 16 384 sums."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval. The bounds are nan where the data allow none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class McNemar:
    """On how many items only `a`, and only `b`, was right, and the exact two-sided p-value."""

    only_a: int
    only_b: int
    p: float


@dataclass(frozen=True, slots=True)
class Anova:
    """A one-way analysis of variance. `p` is None where Levene's test finds unequal variances (`levene_p` < 0.05)."""

    f: float
    p: float | None
    levene_p: float


def wilson(successes: float, n: int) -> Estimate:
    """A proportion with Wilson's score interval; [0, 1] around nan for n = 0. Expected successes need not be whole."""
    if n == 0:
        return Estimate(float("nan"), 0.0, 1.0)
    z = float(stats.norm.ppf(0.5 + LEVEL / 2))
    share, weight = successes / n, z * z / n
    center = (share + weight / 2) / (1 + weight)
    half = z * np.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    return Estimate(share, max(0.0, float(center - half)), min(1.0, float(center + half)))


def independent_shares(a: Estimate, b: Estimate) -> Estimate:
    """The difference a - b of shares of different items, from Wilson's intervals of both.

    Newcombe's hybrid score interval (Statistics in Medicine 17, 1998, 873-890, method 10): it has a width also where
    nothing, or everything, was right.
    """
    difference = a.value - b.value
    low = difference - float(np.hypot(a.value - a.low, b.high - b.value))
    return Estimate(difference, low, difference + float(np.hypot(a.high - a.value, b.value - b.low)))


def unvaried_shares(difference: float, n: int) -> Estimate:
    """The difference of shares on the same n items where it is the same on each, which a bootstrap calls certain.

    Tango's score interval for paired shares (Statistics in Medicine 17, 1998, 891-908), which is this where no item,
    or every item, tells the two apart.
    """
    z = float(stats.norm.ppf(0.5 + LEVEL / 2))
    half = z * z / (n + z * z)
    return Estimate(difference, max(-1.0, difference - half), min(1.0, difference + half))


def mean_interval(values: ArrayLike) -> Estimate:
    """A mean with Student's t interval; bounds are nan for fewer than two values."""
    data = np.asarray(values, dtype=np.float64)
    if data.size < 2:
        return Estimate(float(data.mean()) if data.size else float("nan"), float("nan"), float("nan"))
    half = stats.t.ppf(0.5 + LEVEL / 2, data.size - 1) * data.std(ddof=1) / np.sqrt(data.size)
    mean = float(data.mean())
    return Estimate(mean, mean - float(half), mean + float(half))


def paired_bootstrap(a: ArrayLike, b: ArrayLike, seed: int, resamples: int = 10_000) -> Estimate:
    """The difference of means of two methods on the same items: percentile interval over resampled items.

    Raises:
        ValueError: no items, or unequal numbers of them.
    """
    differences = _paired(a, b)
    n = differences.size
    # Resampling items is drawing how often each distinct difference occurs, which is far smaller.
    distinct, counts = np.unique(differences, return_counts=True)
    generator = rng.stream(seed, "paired_bootstrap", n)
    means = np.concatenate(
        [generator.multinomial(n, counts / n, size=size) @ distinct / n for size in _chunks(resamples)]
    )
    low, high = np.quantile(means, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return Estimate(float(differences.mean()), float(low), float(high))


def sign_flip_test(a: ArrayLike, b: ArrayLike, seed: int, draws: int = 10_000) -> float:
    """Two-sided p-value of the paired permutation test: how often differences with random signs sum up as far from 0.

    Exact for few items, so that n differences of equal sign give 2^(1 - n) (Fisher, The Design of Experiments, 1935);
    beyond that from counted draws, the observed signs being one of them.

    Raises:
        ValueError: no items, or unequal numbers of them.
    """
    differences = _paired(a, b)
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    # Sums that are equal in exact arithmetic count as equal.
    reached = abs(differences.sum()) - 1e-9 * sizes.sum()
    if counts.sum() <= _MOST_ENUMERATED:
        sums = np.zeros(1)
        for size in np.repeat(sizes, counts):
            sums = np.concatenate([sums + size, sums - size])
        return float((np.abs(sums) >= reached).mean())
    generator = rng.stream(seed, "sign_flip_test", differences.size)
    # Flipping the signs of k equal differences is drawing how many of them stay.
    flips = (2 * generator.binomial(counts, 0.5, (size, counts.size)) - counts for size in _chunks(draws))
    extreme = sum(int((np.abs(signs @ sizes) >= reached).sum()) for signs in flips)
    return (extreme + 1) / (draws + 1)


def _chunks(total: int) -> list[int]:
    """How many to draw at a time, so that the draws fit into memory."""
    return [min(_CHUNK, total - done) for done in range(0, total, _CHUNK)]


def mcnemar_exact(a: Sequence[bool], b: Sequence[bool]) -> McNemar:
    """McNemar's exact test on two methods' right and wrong answers to the same items.

    Raises:
        ValueError: no items, or unequal numbers of them.
    """
    differences = _paired(np.asarray(a, dtype=bool), np.asarray(b, dtype=bool))
    only_a, only_b = int((differences > 0).sum()), int((differences < 0).sum())
    n = only_a + only_b
    return McNemar(only_a, only_b, min(1.0, 2 * float(stats.binom.cdf(min(only_a, only_b), n, 0.5))) if n else 1.0)


def detectable_difference(a: ArrayLike, b: ArrayLike) -> float:
    """The smallest true difference that a paired test on so many items finds with 80 % power at 5 %.

    (z(1 - 0.05/2) + z(0.8)) * s / sqrt(n) = 2.80 standard errors, s the standard deviation of the paired differences
    (Bloom, Evaluation Review 19(5), 1995; for evaluations of language models Miller, arXiv 2411.00640). It
    says what this many items could have shown, not whether there is a difference. nan where all differences are equal,
    since they tell nothing of their spread.

    Raises:
        ValueError: no items, or unequal numbers of them.
    """
    differences = _paired(a, b)
    spread = float(differences.std(ddof=1)) if differences.size > 1 else 0.0
    if spread == 0.0:
        return float("nan")
    factor = float(stats.norm.ppf(1 - ALPHA / 2) + stats.norm.ppf(POWER))
    return factor * spread / float(np.sqrt(differences.size))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of one family of tests, adjusted by Holm's step-down method (Scand. J. Statist. 6, 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)))
    return [float(value) for value in adjusted]


def anova(groups: Sequence[Sequence[float]]) -> Anova | None:
    """One-way analysis of variance as MachineSoM reports it: only where Levene's test lets variances be equal.

    Args:
        groups: At least two, of at least two values each. Levene's test is centred on medians, as scipy's is.

    Returns:
        None where the groups are too few or too small, or where no group varies at all.
    """
    if len(groups) < 2 or min(map(len, groups)) < 2 or all(len(set(group)) == 1 for group in groups):
        return None
    f, p = stats.f_oneway(*groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        levene_p = float(stats.levene(*groups).pvalue)
    # Deviations from the median that are all alike leave Levene's statistic at 0 / 0: nothing speaks against equality.
    levene_p = 1.0 if np.isnan(levene_p) else levene_p
    return Anova(float(f), float(p) if levene_p >= ALPHA else None, levene_p)


def _paired(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1 or left.size == 0:
        raise ValueError(f"paired tests need two equal, non-empty lists of items, got {left.shape}, {right.shape}")
    return left - right
