"""Rank correlation of two measures of agents over many episodes, with an interval and a test that respect episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from coterie import rng
from coterie.experiments.statistics.inference import LEVEL, Estimate

Floats = NDArray[np.float64]
_CHUNK = 250
_SAME = 1e-12


@dataclass(frozen=True, slots=True)
class Association:
    """How two measures go together.

    Attributes:
        episodes: E.
        informative: In how many of them both measures tell agents apart.
        pooled: Spearman's correlation over all E * N pairs; nan where a measure never varies.
        pooled_p: Of the permutation test on it.
        within: Mean of the informative episodes' own Spearman correlations; nan if there is none.
        within_p: Of the permutation test on it.
    """

    episodes: int
    informative: int
    pooled: Estimate
    pooled_p: float
    within: Estimate
    within_p: float


def associate(x: ArrayLike, y: ArrayLike, seed: int, resamples: int = 2000, draws: int = 5000) -> Association:
    """Spearman's rank correlation of two measures [E, N] of N agents in E episodes.

    Ties have their mean rank. Intervals are percentiles over resampled episodes, ranks taken anew. The tests are
    two-sided: agents are permuted within episodes, so that what whole episodes have in common makes no difference; the
    order at hand is one of the draws.

    Raises:
        ValueError: the shapes differ, or there is nothing to compare.
    """
    left, right = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if left.shape != right.shape or left.ndim != 2 or left.size == 0:
        raise ValueError(f"two measures [E, N] of the same agents are compared, got {left.shape}, {right.shape}")
    own = _rank(left), _rank(right)
    alike = (own[0] * own[1]).sum(axis=1)
    varies = np.asarray(own[0].any(axis=1) & own[1].any(axis=1), np.bool_)
    stream = rng.stream(seed, "associate", *left.shape)
    rows = stream.integers(len(left), size=(resamples, len(left)))
    pooled, within = float(_pooled(left[None], right[None])[0]), float(_mean(alike, varies))
    standard = [_rank(values.reshape(1, -1)).reshape(values.shape) for values in (left, right)]
    pooled_p, within_p = _test([(standard[0], standard[1]), own], draws, stream)
    parts = np.array_split(rows, -(-resamples // _CHUNK))
    drawn = np.concatenate([_pooled(left[part], right[part]) for part in parts])
    return Association(
        len(left), int(varies.sum()), _interval(pooled, drawn), pooled_p if pooled == pooled else pooled,
        _interval(within, _mean(alike[rows], varies[rows])), within_p if varies.any() else within,
    )  # fmt: skip


def _pooled(x: Floats, y: Floats) -> Floats:
    """Of each sample of episodes [R, E, N] the correlation over all pairs, [R]; nan where a measure is constant."""
    a, b = (_rank(values.reshape(len(values), -1)) for values in (x, y))
    return np.where(a.any(axis=1) & b.any(axis=1), (a * b).sum(axis=1), np.nan)


def _mean(alike: Floats, varies: NDArray[np.bool_]) -> Floats:
    """Of each sample the mean of the correlations [..., E] of its episodes that vary; nan if none does."""
    count = varies.sum(axis=-1)
    return np.asarray(np.where(count > 0, alike.sum(axis=-1) / np.maximum(count, 1), np.nan))


def _rank(values: Floats) -> Floats:
    """Ranks in each row [R, M], centred and of unit length; zeros where nothing varies."""
    ranks = stats.rankdata(values, axis=1)
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    lengths = np.sqrt((centred**2).sum(axis=1, keepdims=True))
    return np.asarray(np.divide(centred, lengths, out=np.zeros_like(centred), where=lengths > _SAME))


def _interval(value: float, drawn: Floats) -> Estimate:
    known = drawn[~np.isnan(drawn)]
    if np.isnan(value) or known.size < 2:
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.quantile(known, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return Estimate(value, float(low), float(high))


def _test(pairs: Sequence[tuple[Floats, Floats]], draws: int, stream: np.random.Generator) -> list[float]:
    """Of each pair, how often sum(a * b) is as far from its mean with the columns of every row of `b` permuted."""
    means = np.array([(a.mean(axis=1) * b.mean(axis=1)).sum() * a.shape[1] for a, b in pairs])
    reached = np.abs([(a * b).sum() for a, b in pairs] - means) - _SAME
    extreme, done = np.zeros(len(pairs)), 0
    while done < draws:
        count = min(_CHUNK, draws - done)
        order = np.argsort(stream.random((count, *pairs[0][1].shape)), axis=2)
        drawn = np.stack([(a * np.take_along_axis(b[None], order, axis=2)).sum(axis=(1, 2)) for a, b in pairs])
        extreme += (np.abs(drawn - means[:, None]) >= reached[:, None]).sum(axis=1)
        done += count
    return [float((count + 1) / (draws + 1)) for count in extreme]
