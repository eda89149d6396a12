"""Which tokens are chosen, and what becomes of factors: pure functions that the rules share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from coterie.rewards.credit.token import Floats, Marks

Sign = Literal["both", "positive", "negative"]


def top(values: Floats, share: float) -> Marks:
    """The highest values, bool [N]: `share` of those that are known, rounded half up, one at least.

    Of equal values the earlier come first, so that the choice is the same whatever sorted them; NaN is not known.
    """
    known = int((~np.isnan(values)).sum())
    count = min(known, max(1, math.floor(share * known + 0.5)))
    chosen = np.zeros(len(values), np.bool_)
    # argsort puts NaN last.
    chosen[np.argsort(-values, kind="stable")[:count]] = True
    return chosen


def amplified(part: Floats | Marks, amplify: float) -> Floats:
    """1 + (amplify - 1) * part, [T]: of each token the part of the bonus that it gets."""
    return 1 + (amplify - 1) * part.astype(np.float64)


def applies_to(advantage: Floats, sign: Sign) -> Marks:
    """The tokens whose advantage a rule may change, bool [T]; those of advantage 0 in each case."""
    if sign == "both":
        return np.ones(len(advantage), np.bool_)
    return advantage >= 0 if sign == "positive" else advantage <= 0


def restrict(factor: Floats, applies: Marks) -> Floats:
    """Factors, and 1 where the rule does not apply, [T]."""
    return np.where(applies, factor, 1.0)


def normalise(factors: Sequence[Floats], applies: Sequence[Marks]) -> list[Floats]:
    """Factors divided by their mean over all tokens together to which the rule applies; others are left as they are.

    If those factors are all 0, they become 1.
    """
    chosen = np.concatenate([factor[at] for factor, at in zip(factors, applies, strict=True)] or [np.zeros(0)])
    mean = float(chosen.mean()) if len(chosen) else 1.0
    if not mean:
        return [np.where(at, 1.0, factor) for factor, at in zip(factors, applies, strict=True)]
    return [np.where(at, factor / mean, factor) for factor, at in zip(factors, applies, strict=True)]
