"""Spaces of a swarm, in Gymnasium's terms."""

from __future__ import annotations

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from coterie.envs.swarm.config import SwarmConfig


def bounds(config: SwarmConfig) -> NDArray[np.float32]:
    """The greatest magnitude of each of a drone's D observations, float32 [D]; infinite where nothing is clipped."""
    quirky = config.compat == "quad_swarm_rl"
    wide = max(config.room[0], config.room[1], 2 * config.room[2])
    own = [wide] * 3 + [20.0] * 3 + [1.01] * 9 + [config.quadrotor.max_omega] * 3
    if quirky:
        own = [np.inf] * 3 + [np.inf] * 3 + [1.01] * 9 + [np.inf] * 3
    own += {"none": [], "height": [np.inf if quirky else config.room[2]], "walls": [5.0] * 6}[config.surrounding]
    others = ([10.0] * 3 + [6.0] * 3) * config.num_neighbours
    patch = [] if config.obstacles is None else [max(10.0, config.room[0] + config.room[1])] * 9
    return np.array(own + others + patch, np.float32)


def observation_space(config: SwarmConfig, num_drones: int | None = None) -> Box:
    """Of one drone, [D], or of all of them, [N, D]."""
    high = bounds(config)
    if num_drones is not None:
        high = np.tile(high, (num_drones, 1))
    return Box(-high, high, dtype=np.float32)


def action_space(num_drones: int | None = None) -> Box:
    """Of one drone, [4], or of all of them, [N, 4]."""
    return Box(-1.0, 1.0, (4,) if num_drones is None else (num_drones, 4), np.float32)
