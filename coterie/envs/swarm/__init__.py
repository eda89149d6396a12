"""A world of quadrotor swarms: many environments of many drones in one step.

from coterie.envs.swarm import SwarmConfig, VecSwarm

world = VecSwarm(SwarmConfig(num_drones=8), num_envs=64, seed=0)
observation = world.reset()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coterie.envs.swarm.config import Curriculum, Noise, Obstacles, Quadrotor, Replay, Rewards, SwarmConfig
    from coterie.envs.swarm.world import PhysicsError, VecSwarm

__all__ = [
    "Curriculum", "Noise", "Obstacles", "PhysicsError", "Quadrotor", "Replay", "Rewards", "SwarmConfig", "VecSwarm",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Lazy, so that a config is checked without a compiler in memory.
    if name not in __all__:
        raise AttributeError(f"module 'coterie.envs.swarm' has no attribute {name!r}")
    home = "world" if name in ("PhysicsError", "VecSwarm") else "config"
    return getattr(importlib.import_module(f"coterie.envs.swarm.{home}"), name)
