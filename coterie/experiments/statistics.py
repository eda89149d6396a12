"""Intervals, paired tests, and what self-consistency would have scored at any budget. All intervals are 95 %."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from coterie import rng

_LEVEL = 0.95
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval. The bounds are nan where the data allow none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison(Estimate):
    """A paired difference `a - b` with its 95 % interval and two-sided p-value."""

    p: float


@dataclass(frozen=True, slots=True)
class McNemar:
    """On how many items only `a`, and only `b`, was right, and the exact two-sided p-value."""

    only_a: int
    only_b: int
    p: float


@dataclass(frozen=True, slots=True)
class BudgetPoint:
    """What self-consistency scores at a budget: `value` at `samples` samples (fractional between two whole numbers).

    `is_beyond`: the budget buys more samples than there are; `value` is that of all of them.
    """

    value: float
    samples: float
    is_beyond: bool


def wilson(successes: int, n: int) -> Estimate:
    """A proportion with Wilson's score interval; [0, 1] around nan for n = 0."""
    if n == 0:
        return Estimate(float("nan"), 0.0, 1.0)
    z = float(stats.norm.ppf(0.5 + _LEVEL / 2))
    share, weight = successes / n, z * z / n
    center = (share + weight / 2) / (1 + weight)
    half = z * np.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    return Estimate(share, max(0.0, float(center - half)), min(1.0, float(center + half)))


def mean_interval(values: ArrayLike) -> Estimate:
    """A mean with Student's t interval; bounds are nan for fewer than two values."""
    data = np.asarray(values, dtype=np.float64)
    if data.size < 2:
        return Estimate(float(data.mean()) if data.size else float("nan"), float("nan"), float("nan"))
    half = stats.t.ppf(0.5 + _LEVEL / 2, data.size - 1) * data.std(ddof=1) / np.sqrt(data.size)
    mean = float(data.mean())
    return Estimate(mean, mean - float(half), mean + float(half))


def paired_bootstrap(a: ArrayLike, b: ArrayLike, seed: int, resamples: int = 10_000) -> Comparison:
    """The difference of means of two methods on the same items: percentile interval over resampled items.

    `p` is twice the smaller share of resampled differences on either side of zero (with the usual plus one), so that it
    falls below 0.05 where the interval leaves zero out.

    Raises:
        ValueError: no items, or unequal numbers of them.
    """
    differences = _paired(a, b)
    if not differences.any():
        return Comparison(0.0, 0.0, 0.0, 1.0)
    n = differences.size
    # Resampling items is drawing how often each distinct difference occurs, which is far smaller.
    distinct, counts = np.unique(differences, return_counts=True)
    generator = rng.stream(seed, "paired_bootstrap", n)
    sizes = [min(_CHUNK, resamples - done) for done in range(0, resamples, _CHUNK)]
    means = np.concatenate([generator.multinomial(n, counts / n, size=size) @ distinct / n for size in sizes])
    low, high = np.quantile(means, [0.5 - _LEVEL / 2, 0.5 + _LEVEL / 2])
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return Comparison(float(differences.mean()), float(low), float(high), min(1.0, 2 * (tail + 1) / (resamples + 1)))


def mcnemar_exact(a: Sequence[bool], b: Sequence[bool]) -> McNemar:
    """McNemar's exact test on two methods' right and wrong answers to the same items.

    Raises:
        ValueError: no items, or unequal numbers of them.
    """
    differences = _paired(np.asarray(a, dtype=bool), np.asarray(b, dtype=bool))
    only_a, only_b = int((differences > 0).sum()), int((differences < 0).sum())
    n = only_a + only_b
    return McNemar(only_a, only_b, min(1.0, 2 * float(stats.binom.cdf(min(only_a, only_b), n, 0.5))) if n else 1.0)


def _paired(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1 or left.size == 0:
        raise ValueError(f"paired tests need two equal, non-empty lists of items, got {left.shape}, {right.shape}")
    return left - right


# --- self-consistency: exact expectations over all subsets of the journalled samples


def subsample_majority(
    correct_count: int,
    wrong_counts: Sequence[int],
    unparsed: int,
    k: int,
    tie: str = "none",
    no_answer: str = "abstain",
) -> float:
    """The exact chance that one class of answers wins the majority vote of k samples drawn without replacement.

    Args:
        correct_count: How many of the n samples are of that class.
        wrong_counts: Sizes of all other classes of answers.
        unparsed: Samples without an answer.
        k: 1 to n.
        tie: `none`: a tie of t classes wins nothing; `first`, `random`: it wins 1/t (over all orders of the samples).
        no_answer: `strict`: the class also needs more than half of the k samples.

    Raises:
        ValueError: k out of range.
    """
    n = correct_count + sum(wrong_counts) + unparsed
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} is not between 1 and the {n} samples")
    return _win_curve(correct_count, wrong_counts, unparsed, tie, no_answer)[k - 1]


def self_consistency_curve(
    answers: Sequence[Sequence[str | None]],
    correct: Sequence[Collection[str]],
    tie: str = "none",
    no_answer: str = "abstain",
) -> NDArray[np.float64]:
    """Expected accuracy [tasks, n] of a majority vote of k = 1..n of each task's n journalled samples.

    Args:
        answers: Per task the parsed answers of its n samples, None for unparsed.
        correct: Per task those of the answers that were judged right.
        tie: As in `subsample_majority`.
        no_answer: As in `subsample_majority`.

    Raises:
        ValueError: tasks with unequal numbers of samples, or none.
    """
    if len({len(row) for row in answers}) != 1 or not answers[0]:
        raise ValueError("every task needs the same number of samples, at least one")
    return np.array([_task_curve(row, right, tie, no_answer) for row, right in zip(answers, correct, strict=True)])


def at_budget(curve: ArrayLike, costs: ArrayLike, budget: float) -> BudgetPoint:
    """What a self-consistency curve is worth at an expected cost of `budget`.

    Between two neighbouring k it is the randomised policy that takes either of them so often that its expected cost is
    the budget: linear interpolation. Below one sample it answers only sometimes, and is wrong when it does not.

    Args:
        curve: Accuracy at k = 1..n.
        costs: Cost of k = 1..n samples, increasing.
        budget: In the unit of `costs`.

    Raises:
        ValueError: costs that do not increase, or another number of them.
    """
    values, spent = np.asarray(curve, dtype=np.float64), np.asarray(costs, dtype=np.float64)
    if values.shape != spent.shape or values.size == 0 or any(x >= y for x, y in pairwise([0.0, *spent.tolist()])):
        raise ValueError("need one positive, increasing cost for each point of the curve")
    value = np.interp(budget, [0.0, *spent], [0.0, *values])
    samples = np.interp(budget, [0.0, *spent], np.arange(values.size + 1))
    return BudgetPoint(float(value), float(samples), bool(budget > spent[-1]))


def _task_curve(answers: Sequence[str | None], correct: Collection[str], tie: str, no_answer: str) -> list[float]:
    counts = Counter(answer for answer in answers if answer is not None)
    unparsed = len(answers) - counts.total()
    curve = np.zeros(len(answers))
    for answer in counts.keys() & set(correct):
        others = [count for other, count in counts.items() if other != answer]
        curve += _win_curve(counts[answer], others, unparsed, tie, no_answer)
    return curve.tolist()


def _win_curve(own: int, others: Sequence[int], unparsed: int, tie: str, no_answer: str) -> list[float]:
    """Chance of winning at k = 1..n: subsets counted by generating functions in x, whose exponent is the subset's size.

    A polynomial is one integer, its value at x = 2**slot: no coefficient exceeds the 2**n subsets there are.
    """
    n = own + sum(others) + unparsed
    slot = n + 1
    wins = Counter[int]()
    for votes in range(1, own + 1):
        chosen = comb(own, votes) << slot * votes
        for tied, ways in enumerate(_rivals(others, unparsed, votes, slot, tie)):
            kept = ways * chosen
            wins[tied + 1] += kept & ((1 << slot * 2 * votes) - 1) if no_answer == "strict" else kept
    digit = (1 << slot) - 1
    return [
        sum((poly >> slot * k & digit) / (share * comb(n, k)) for share, poly in wins.items()) for k in range(1, n + 1)
    ]


def _rivals(others: Sequence[int], unparsed: int, votes: int, slot: int, tie: str) -> list[int]:
    """At index t: subsets of the others' samples where t classes have `votes` votes each, and none has more."""
    free = unparsed + sum(size for size in others if size < votes)
    polys = [_choose(free, free, slot)]
    for size in others:
        if size < votes:
            continue
        below, level = _choose(size, votes - 1, slot), comb(size, votes) << slot * votes
        extended = [poly * below for poly in polys] + [0]
        if tie != "none":
            for tied, poly in enumerate(polys, start=1):
                extended[tied] += poly * level
        polys = extended if tie != "none" else extended[:1]
    return polys


def _choose(size: int, most: int, slot: int) -> int:
    """The polynomial of all subsets of `size` samples with at most `most` members."""
    return sum(comb(size, i) << slot * i for i in range(most + 1))
