"""What a policy of a world attends to while it is evaluated: means over agents and time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coterie.types import WorldSpec

if TYPE_CHECKING:
    from coterie.agents.learning.normalisation import NormalisedActor
    from coterie.agents.swarm.networks import Actor

EVERY = 10
"""Ticks from one look to the next: attention changes slowly, and looking costs as much as acting."""


class AttentionTally:
    """Sums over agents that attend to anything.

    Args:
        policy: Whose attention is read, as the mean over heads.
        spec: The world, which says what its slots are.
    """

    def __init__(self, policy: Actor | NormalisedActor, spec: WorldSpec) -> None:
        self._policy, self._layout = policy, spec.layout
        self._places: NDArray[np.float64] | None = None
        self._entropy = 0.0
        self._rows = self._choices = 0

    def look(self, observation: NDArray[np.float32]) -> None:
        """Take in what agents attend to that observe this, [E, N, D]; nothing where the policy has no attention."""
        import torch

        if self._layout is None:
            return
        device = next(self._policy.parameters()).device
        with torch.no_grad():
            weights = self._policy.attention(torch.as_tensor(observation, device=device).flatten(0, 1))
        if weights is not None:
            self.add(weights.mean(1).double().cpu().numpy())

    def add(self, weights: NDArray[np.float64]) -> None:
        """Take in weights [B, K] or [B, K + 1] of each neighbour and of obstacles; rows of zeros attend to nothing."""
        weights = weights[weights.sum(1) > 0]
        found = weights.sum(0)
        self._places = found if self._places is None else self._places + found
        self._rows += len(weights)
        choices = (weights > 0).sum(1)
        chosen = weights[choices > 1]
        logs = np.log(chosen, where=chosen > 0, out=np.zeros_like(chosen))
        self._entropy += float((-(chosen * logs).sum(1) / np.log(choices[choices > 1])).sum())
        self._choices += len(chosen)

    def measure(self) -> dict[str, Any] | None:
        """Mean weights of neighbours, nearest first, and of obstacles, and how evenly attention is spread.

        `evenness` is the entropy over the greatest that the number of things seen allows: 1 is alike, 0 is one thing
        alone. None: nothing was taken in.
        """
        if self._places is None or self._layout is None or not self._rows:
            return None
        mean = (self._places / self._rows).tolist()
        has_obstacles = self._layout.obstacle_size > 0
        return {
            "neighbours": mean[:-1] if has_obstacles else mean,
            "obstacles": mean[-1] if has_obstacles else None,
            "evenness": self._entropy / self._choices if self._choices else None,
            "looks": self._rows,
        }
