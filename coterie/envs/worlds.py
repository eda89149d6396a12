"""Worlds from their configs."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from coterie.envs import parallel
from coterie.envs.cores import count_cores

if TYPE_CHECKING:
    from coterie.envs.config import PettingZooConfig, QuadSwarmConfig
    from coterie.envs.pettingzoo import PettingZooWorld
    from coterie.envs.swarm.config import SwarmConfig
    from coterie.types import World

_DRONES = 512
"""In a part: enough that a policy is asked for many actions at a time."""
_MOST_PARTS = 16


def make_swarm(config: QuadSwarmConfig, seed: int, first_env: int = 0, device: str = "cpu") -> World:
    """Quadrotor swarms, on a CPU in parts of about 512 drones: as many as the config makes, not the machine.

    They are compiled when this returns.

    Args:
        config: The world.
        seed: Of all episodes.
        first_env: Index of the first environment, where these are a shard of more.
        device: Where the policy is. On a GPU the swarms are, too, if they can be: see `VecSwarm`.
    """
    from coterie.envs.joined import JoinedWorld
    from coterie.envs.swarm.training import SwarmWorld
    from coterie.envs.swarm.world import fits_gpu

    made, envs = config.build(), config.num_envs
    place = "cuda" if device == "cuda" and fits_gpu(made) else "cpu"
    _compile(made, place)
    if place == "cuda":
        return SwarmWorld(made, envs, seed, first_env=first_env, device=place)
    parts = min(max(envs * made.num_drones // _DRONES, 1), envs, _MOST_PARTS)
    if parts == 1:
        return SwarmWorld(made, envs, seed, first_env=first_env)
    edges = [envs * part // parts for part in range(parts + 1)]
    worlds = [
        SwarmWorld(made, high - low, seed, first_env=first_env + low, threads=1)
        for low, high in itertools.pairwise(edges)
    ]
    return JoinedWorld(worlds, threads=min(parts, count_cores()))


def _compile(config: SwarmConfig, device: str) -> None:
    """Have one swarm begin and fly a step: what is compiled for that serves any number of them."""
    from coterie.envs.swarm.training import SwarmWorld

    world = SwarmWorld(config, 1, 0, threads=1, device=device)
    world.reset()
    world.step(np.zeros((1, config.num_drones, 4), np.float32))
    world.close()


def make_pettingzoo(config: PettingZooConfig, seed: int, first_env: int = 0) -> PettingZooWorld:
    """Copies of a `ParallelEnv`; `first_env` as in `make_swarm`.

    Raises:
        EnvironmentMissing: A package is not installed.
        ConfigError: The module does not make such an environment.
    """
    return parallel.make_world(config.id, config.params, config.num_envs, seed, first_env)
