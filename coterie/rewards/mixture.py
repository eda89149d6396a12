"""Several rewards as one."""

from __future__ import annotations

import math
from collections.abc import Mapping


def mix(rewards: Mapping[str, Mapping[str, float]], weights: Mapping[str, float]) -> dict[str, float]:
    """The weighted sum of rewards, by turn key.

    A reward that gives a turn nothing adds nothing to it. One of weight 0 is only journalled: a turn that no other
    rewards is left out, so that nothing is learnt from it.

    Args:
        rewards: Each reward's values by turn key, by its name.
        weights: By name.

    Raises:
        KeyError: a reward has no weight.
    """
    given = [(weights[name], values) for name, values in rewards.items()]
    counted = [(weight, values) for weight, values in given if weight]
    keys = sorted({key for _, values in counted for key in values})
    return {key: math.fsum(weight * values[key] for weight, values in counted if key in values) for key in keys}
