"""Credit from replays: what a team's result owes to each agent, by what it is worth without it. Exact references.

Values are graded outcomes as numbers, one for each of D draws. Draws are common: draw k of one coalition is compared
with draw k of another, so what both share by chance cancels. Every rule gives the credit of N agents draw by draw,
float64 [N, D]; `average` says what it comes to, and how sure that is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from coterie.errors import CoterieError
from coterie.rewards.shapley import Estimate, Floats, Game, Masks, exact_shapley


def leave_one_out(whole: ArrayLike, without: ArrayLike) -> Floats:
    """What the team is worth more than without agent i, v(all) - v(all but i).

    Source: C3 (arXiv 2603.06859), CCPO (arXiv 2603.21563).

    Args:
        whole: Of the unchanged team, [D].
        without: Of the team without each agent, [N, D].

    Raises:
        CoterieError: the shapes do not fit, or a value is not finite.
    """
    values, hidden = _read(whole, 1), _read(without, 2)
    _check(values.shape == hidden.shape[1:], "every agent has as many draws as the whole team", hidden)
    return values - hidden


def shapley_value(table: ArrayLike) -> Floats:
    """Shapley values by enumeration; in each draw they sum to v(all) - v(none).

    Args:
        table: Of every coalition, in the order of `shapley.coalitions`, [2^N, D].

    Raises:
        CoterieError: a coalition is missing, or a value is not finite.
    """
    values = _read(table, 2)
    size = len(values).bit_length() - 1
    _check(len(values) == 1 << size, "there is a row for each coalition", values)
    return np.stack([exact_shapley(Game(size, _lookup(column))) for column in values.T], axis=1)


def counterfactual(actual: float, redrawn: ArrayLike) -> Floats:
    """What the episode is worth more than with agent i's messages drawn anew and the others' draws kept.

    Its mean is COMA's advantage (arXiv 1705.08926), with replays in place of a critic and of the sum over actions.

    Args:
        actual: Of the episode as it was.
        redrawn: For each agent, [N, D].

    Raises:
        CoterieError: a value is not finite.
    """
    return np.asarray(actual - _read(redrawn, 2))


def average(credit: ArrayLike) -> Estimate:
    """Means [N] over draws, and their standard errors [N], nan of a single draw; from [N, D]."""
    drawn = _read(credit, 2)
    count = drawn.shape[1]
    errors = drawn.std(axis=1, ddof=1) / math.sqrt(count) if count > 1 else np.full(len(drawn), math.nan)
    return Estimate(drawn.mean(axis=1), errors)


def noise(whole: ArrayLike) -> float:
    """Standard deviation over draws of what unchanged teams are worth, [E, D], pooled over E episodes; nan for D = 1.

    What is said to hang on an agent has to stand out from it: two means of D draws that had nothing in common would
    differ by sqrt(2 / D) of it.
    """
    values = _read(whole, 2)
    return float(np.sqrt(values.var(axis=1, ddof=1).mean())) if values.shape[1] > 1 else math.nan


def _lookup(column: Floats) -> Callable[[Masks], Floats]:
    """A value function that looks coalitions up."""
    return lambda masks: np.asarray(column[masks @ (1 << np.arange(masks.shape[1]))])


def _read(values: ArrayLike, dimensions: int) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    _check(found.ndim == dimensions and found.size > 0, f"there are {dimensions} axes, the last of draws", found)
    _check(bool(np.isfinite(found).all()), "every value is finite", found)
    return found


def _check(holds: bool, what: str, values: Floats) -> None:
    if not holds:
        raise CoterieError(f"no values of replays: an array of shape {values.shape}", where="credit.replay",
                           remedy=f"see to it that {what}")  # fmt: skip
