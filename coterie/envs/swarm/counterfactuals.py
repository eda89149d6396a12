"""What a swarm would have earned without one of its drones, or had one hovered: for each drone a world of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coterie.envs.swarm import layout as at
from coterie.envs.swarm.config import Quadrotor, SwarmConfig
from coterie.envs.swarm.world import VecSwarm

Moment = Mapping[str, NDArray[Any]]
"""Environments at one moment: the rows of `kernel.Arrays` that decide what follows, as copies."""

_ROWS = ("drones", "flags", "counters", "settings", "obstacles", "cells", "keys", "terminated", "truncated")


def keep(swarm: VecSwarm) -> Moment:
    """Where all environments of a swarm stand; from a GPU, too."""
    arrays = swarm.arrays
    return {name: getattr(arrays, name).copy() for name in _ROWS}


def hovering(drone: Quadrotor) -> float:
    """The action of all four motors by which a drone that is level carries its weight."""
    return 2 / drone.thrust_to_weight - 1


class Counterfactuals:
    """E times N worlds, all of which one step moves: in world e N + i, drone i of environment e does something else.

    Noise is counted by environment, tick and drone, so the worlds differ by what that drone does, and by nothing else.
    They are stepped on a CPU.

    Args:
        config: Of the world that is asked about.
        num_envs: E.
        instead: `removed`: the drone is out of the world; `hover`: see `hovering`; `nothing`: it does what it did.
        threads: See `VecSwarm`.
    """

    def __init__(
        self,
        config: SwarmConfig,
        num_envs: int,
        instead: Literal["removed", "hover", "nothing"] = "removed",
        threads: int | None = None,
    ) -> None:
        self._instead, self._flies_on = instead, config.crash == "fly_on"
        self._shape = num_envs, config.num_drones
        # Where crashed drones are lost, the simulator keeps those that are out of the world out of it.
        made = replace(config, replay=None, crash="lose" if instead == "removed" else config.crash)
        self._swarm = VecSwarm(made, num_envs * config.num_drones, threads=threads)
        self._changed = np.tile(np.eye(config.num_drones, dtype=np.bool_), (num_envs, 1))
        """Which drone does something else in each world, [E N, N]."""

    def begin(self, moments: Sequence[Moment]) -> None:
        """Put every world where its environment stood; `moments` have all E environments in order."""
        arrays = self._swarm.arrays
        for name in _ROWS:
            rows = np.concatenate([moment[name] for moment in moments])
            getattr(arrays, name)[...] = np.repeat(rows, self._shape[1], 0)
        if self._instead == "removed":
            arrays.flags[self._changed] |= at.LOST
            arrays.terminated[self._changed] = True

    def step(self, actions: ArrayLike) -> NDArray[np.float64]:
        """What teams earn together in the next step of each world, [E, N].

        Args:
            actions: What was done in each environment, [E, N, 4].

        Raises:
            PhysicsError: A number is none.
        """
        given = np.repeat(np.asarray(actions, np.float32), self._shape[1], 0)
        if self._instead == "hover":
            given[self._changed] = hovering(self._swarm.config.quadrotor)
        earned: NDArray[np.float64] = self._swarm.step(given).reward.sum(1, dtype=np.float64)
        if self._instead == "removed" and self._flies_on:
            self._bring_back()
        return earned.reshape(self._shape)

    def _bring_back(self) -> None:
        """Those whom contacts have taken out of worlds in which they would have flown on."""
        arrays = self._swarm.arrays
        arrays.flags[~self._changed] &= ~at.LOST
        arrays.terminated[~self._changed] = False

    def close(self) -> None:
        """Let the threads go."""
        self._swarm.close()
