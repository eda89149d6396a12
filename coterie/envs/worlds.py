"""Worlds from their configs."""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from coterie.errors import ConfigError, EnvironmentMissing

if TYPE_CHECKING:
    from coterie.envs.config import PettingZooConfig, QuadSwarmConfig
    from coterie.envs.pettingzoo import PettingZooWorld
    from coterie.types import World

_DRONES = 512
"""In a part: enough that a policy is asked for many actions at a time."""
_MOST_PARTS = 16


def make_swarm(config: QuadSwarmConfig, seed: int) -> World:
    """Quadrotor swarms, in parts of about 512 drones: as many as the config makes, not the machine."""
    from coterie.envs.joined import JoinedWorld
    from coterie.envs.swarm.training import SwarmWorld

    made, envs = config.build(), config.num_envs
    parts = min(max(envs * made.num_drones // _DRONES, 1), envs, _MOST_PARTS)
    if parts == 1:
        return SwarmWorld(made, envs, seed)
    edges = [envs * part // parts for part in range(parts + 1)]
    worlds = [SwarmWorld(made, high - low, seed, first_env=low, threads=1) for low, high in itertools.pairwise(edges)]
    return JoinedWorld(worlds, threads=min(parts, os.cpu_count() or 1))


def make_pettingzoo(config: PettingZooConfig, seed: int) -> PettingZooWorld:
    """Copies of a `ParallelEnv`.

    Raises:
        EnvironmentMissing: A package is not installed.
        ConfigError: The module does not make such an environment.
    """
    try:
        from coterie.envs.pettingzoo import PettingZooWorld
    except ModuleNotFoundError as missing:
        raise EnvironmentMissing(
            f"the package {missing.name} is missing", where="env.kind", remedy=f"pip install {missing.name}"
        ) from missing
    return PettingZooWorld(_maker(config.id, dict(config.params)), config.num_envs, seed)


def _maker(name: str, params: dict[str, Any]) -> Callable[[], Any]:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        raise EnvironmentMissing(
            f"there is no module {missing.name}", where="env.id", remedy="install its package, or mend the name"
        ) from missing
    make = getattr(module, "parallel_env", None)
    if make is None:
        raise ConfigError(f"{name} has no parallel_env", where="env.id",
                          remedy="name a module with PettingZoo's parallel interface")  # fmt: skip

    def made() -> Any:
        try:
            return make(**params)
        except TypeError as cause:
            raise ConfigError(f"{name}.parallel_env: {cause}", where="env.params") from cause

    return made
