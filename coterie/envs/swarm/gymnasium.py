"""The world as a Gymnasium vector environment: one sub-environment is one swarm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from coterie.envs.swarm.config import SwarmConfig
from coterie.envs.swarm.spaces import action_space, observation_space
from coterie.envs.swarm.world import VecSwarm


class SwarmVectorEnv(VectorEnv[Any, Any, Any]):
    """E swarms; observations [E, N, D], actions [E, N, 4], rewards [E]: the mean over the drones of each.

    Rewards of each drone are in `infos["rewards"]` [E, N]. Under `SAME_STEP` an environment whose time is up begins its
    next episode in the same call, and `infos["final_obs"]` [E, N, D] with the mask `infos["_final_obs"]` [E] holds how
    the last one ended. Under `DISABLED` it waits for `reset(options={"reset_mask": mask})`.

    Args:
        config: The world; None: the default.
        num_envs: E.
        autoreset: What happens to finished environments.
    """

    metadata: dict[str, Any] = {"name": "quad_swarm_v0", "render_modes": []}

    def __init__(
        self, config: SwarmConfig | None = None, num_envs: int = 1, autoreset: AutoresetMode = AutoresetMode.SAME_STEP
    ) -> None:
        if autoreset not in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED):
            raise ValueError(f"autoreset is {autoreset}: take SAME_STEP or DISABLED")
        self.config = config or SwarmConfig()
        self.num_envs, self._autoreset = num_envs, autoreset
        self.metadata = {**self.metadata, "autoreset_mode": autoreset}
        self.world = VecSwarm(self.config, num_envs, 0)
        self.single_observation_space = observation_space(self.config, self.config.num_drones)
        self.single_action_space = action_space(self.config.num_drones)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin episodes: everywhere, or where `options["reset_mask"]`, bool [E], is set."""
        if seed is None or isinstance(seed, int):
            super().reset(seed=seed)
        mask = (options or {}).get("reset_mask")
        if seed is not None:
            seeds = seed if isinstance(seed, int) else [one if one is not None else env for env, one in enumerate(seed)]
            self.world.seed(seeds)
        return self.world.reset(mask).copy(), {}

    def step(
        self, actions: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One control step. Terminated: all drones are done; truncated: time is up."""
        step = self.world.step(np.asarray(actions))
        rewards = step.reward.copy()
        terminated: NDArray[np.bool_] = np.asarray(step.terminated.all(1))
        truncated = step.truncated & ~terminated
        if self.config.compat == "quad_swarm_rl":
            terminated, truncated = terminated | truncated, np.zeros_like(truncated)
        infos: dict[str, Any] = {"rewards": rewards, "_rewards": np.ones(self.num_envs, np.bool_)}
        over = terminated | truncated
        if self._autoreset == AutoresetMode.SAME_STEP and over.any():
            infos["final_obs"], infos["_final_obs"] = step.observation.copy(), over.copy()
            self.world.reset(over)
        return step.observation.copy(), np.asarray(rewards.mean(1), np.float32), terminated, truncated, infos

    def close_extras(self, **kwargs: Any) -> None:
        self.world.close()


class SwarmEnv(gymnasium.Env[Any, Any]):
    """One swarm as one Gymnasium environment; observations [N, D], actions [N, 4], the mean reward of the drones."""

    metadata: dict[str, Any] = {"name": "quad_swarm_v0", "render_modes": []}

    def __init__(self, config: SwarmConfig | None = None) -> None:
        self.config = config or SwarmConfig()
        self.world = VecSwarm(self.config, 1, 0)
        self.observation_space = observation_space(self.config, self.config.num_drones)
        self.action_space = action_space(self.config.num_drones)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        if seed is not None:
            self.world.seed(seed)
        return self.world.reset()[0].copy(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """One control step."""
        step = self.world.step(action[None])
        terminated, truncated = bool(step.terminated.all()), bool(step.truncated[0])
        if self.config.compat == "quad_swarm_rl":
            terminated, truncated = terminated or truncated, False
        reward = float(step.reward.mean())
        return step.observation[0].copy(), reward, terminated, truncated, {"rewards": step.reward[0].copy()}

    def close(self) -> None:
        self.world.close()
