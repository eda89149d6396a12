"""Which steps of a reply later ones look back to (future attention influence, arXiv 2509.26628)."""

from __future__ import annotations

import numpy as np

from coterie.rewards.credit.selection import top
from coterie.rewards.credit.token import Floats, Marks


def step_tokens(influence: Floats, step: Floats, share: float) -> Marks:
    """The tokens of the top `share` of steps by influence, bool [T]; none where no step's influence is known.

    Args:
        influence: Of each token's step, [T]; NaN: it is too late for others to look back to it.
        step: Its number, [T], not falling.
        share: Of steps.
    """
    if not len(step) or np.isnan(influence).all():
        return np.zeros(len(step), np.bool_)
    first = np.append(True, np.diff(step) != 0)
    chosen: Marks = top(influence[first], share)[np.cumsum(first) - 1]
    return chosen
