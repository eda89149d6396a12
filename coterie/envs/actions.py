"""Actions of agents whose spaces need not be the same, as one array for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from coterie.errors import ConfigError


class Boxes:
    """Continuous actions: [-1, 1] is spread over the bounds of an agent's space; numbers beyond its size are not read.

    Args:
        boxes: The agents' spaces.
    """

    kind: ClassVar[Literal["continuous", "discrete"]] = "continuous"

    def __init__(self, boxes: Sequence[spaces.Box]) -> None:
        self._boxes = list(boxes)
        self.size = max(int(np.prod(box.shape)) for box in self._boxes)
        self.differ = len({box.shape for box in self._boxes}) > 1

    def read(self, agent: int, action: NDArray[Any]) -> NDArray[Any]:
        """What to give to an agent for [A] numbers; clipped where the space is bounded."""
        box = self._boxes[agent]
        given = np.asarray(action[: int(np.prod(box.shape))], np.float64).reshape(box.shape)
        low, high = np.asarray(box.low, np.float64), np.asarray(box.high, np.float64)
        bounded = np.isfinite(low) & np.isfinite(high)
        span = np.where(bounded, high - low, 0)
        spread = np.where(bounded, low, 0) + 0.5 * (np.clip(given, -1, 1) + 1) * span
        return np.clip(np.where(bounded, spread, given), low, high).astype(box.dtype)


class Choices:
    """Discrete actions: one of as many as the agent with most has; a number too high for an agent is its last.

    Args:
        choices: The agents' spaces.
    """

    kind: ClassVar[Literal["continuous", "discrete"]] = "discrete"

    def __init__(self, choices: Sequence[spaces.Discrete]) -> None:
        self._choices = list(choices)
        self.size = max(int(one.n) for one in self._choices)
        self.differ = len({int(one.n) for one in self._choices}) > 1

    def read(self, agent: int, action: Any) -> int:
        """What to give to an agent."""
        space = self._choices[agent]
        return int(space.start) + min(int(action), int(space.n) - 1)


def read_actions(given: Sequence[spaces.Space[Any]]) -> Boxes | Choices:
    """How the actions of these spaces are read.

    Raises:
        ConfigError: They are neither all boxes nor all discrete.
    """
    if boxes := [space for space in given if isinstance(space, spaces.Box)]:
        if len(boxes) == len(given):
            return Boxes(boxes)
    elif len(choices := [space for space in given if isinstance(space, spaces.Discrete)]) == len(given):
        return Choices(choices)
    kinds = ", ".join(sorted({type(space).__name__ for space in given}))
    raise ConfigError(f"agents act in spaces of these kinds: {kinds}", where="env",
                      remedy="train environments where all actions are Box, or all are Discrete")  # fmt: skip
