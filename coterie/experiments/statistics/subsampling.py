"""What self-consistency would have scored at any budget: exact expectations over all subsets of its samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class BudgetPoint:
    """What self-consistency scores at a budget: `value` at `samples` samples (fractional between two whole numbers).

    `is_beyond`: the budget buys more samples than there are; `value` is that of all of them.
    """

    value: float
    samples: float
    is_beyond: bool


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
        tie: `none`: a tie of t answers wins nothing; `first`, `random`: each wins with chance 1/t (over all orders of
            the samples).
        no_answer: `strict`: the winner also needs more than half of the k samples.

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
