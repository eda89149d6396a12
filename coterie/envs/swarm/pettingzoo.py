"""The world as a PettingZoo `ParallelEnv`: each drone is an agent."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from coterie.envs.swarm.config import SwarmConfig
from coterie.envs.swarm.spaces import action_space, bounds, observation_space
from coterie.envs.swarm.world import VecSwarm

Values = dict[str, Any]


class SwarmParallelEnv(ParallelEnv):  # type: ignore[misc]
    """One swarm. With `crash: lose`, drones that crash leave; otherwise all end together when the time is up.

    Args:
        config: The world; None: the default.
    """

    metadata = {"name": "quad_swarm_v0", "render_modes": [], "is_parallelizable": True}

    def __init__(self, config: SwarmConfig | None = None) -> None:
        self.config = config or SwarmConfig()
        self.render_mode = None
        self.world = VecSwarm(self.config, 1, 0)
        self.possible_agents = [f"drone_{i}" for i in range(self.config.num_drones)]
        self.agents: list[str] = []
        self.observation_spaces = {agent: observation_space(self.config) for agent in self.possible_agents}
        self.action_spaces = {agent: action_space() for agent in self.possible_agents}
        high = np.tile(bounds(self.config), self.config.num_drones)
        self.state_space = Box(-high, high, dtype=np.float32)

    def observation_space(self, agent: str) -> Box:
        """Of a drone, [D]; the same object at each call."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Box:
        """Of a drone, [4]; the same object at each call."""
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: Values | None = None) -> tuple[Values, Values]:
        """Begin an episode."""
        if seed is not None:
            self.world.seed(seed)
        self.agents = list(self.possible_agents)
        return self._each(self.world.reset()[0].copy()), {agent: {} for agent in self.agents}

    def step(self, actions: Values) -> tuple[Values, Values, Values, Values, Values]:
        """One control step; an agent without an action does not use its motors."""
        given = np.full((1, len(self.possible_agents), 4), -1.0, np.float32)
        for i, agent in enumerate(self.possible_agents):
            if agent in actions and agent in self.agents:
                given[0, i] = actions[agent]
        step = self.world.step(given)
        over = bool(step.truncated[0])
        quirky = self.config.compat == "quad_swarm_rl"
        observations, rewards = self._each(step.observation[0].copy()), self._each(step.reward[0].tolist())
        terminated = self._each([bool(one) or (over and quirky) for one in step.terminated[0]])
        truncated = self._each([over and not quirky and not one for one in step.terminated[0]])
        infos: Values = {agent: {} for agent in self.agents}
        self.agents = [agent for agent in self.agents if not (terminated[agent] or truncated[agent])]
        return observations, rewards, terminated, truncated, infos

    def _each(self, values: Any) -> Values:
        pairs = zip(self.possible_agents, values, strict=True)
        return {agent: value for agent, value in pairs if agent in self.agents}

    def state(self) -> NDArray[np.float32]:
        """What all drones observe, [N * D]."""
        return np.array(self.world.observation[0].ravel(), np.float32)

    def render(self) -> None:
        """Nothing: there is no picture."""

    def close(self) -> None:
        self.world.close()


def parallel_env(config: SwarmConfig | None = None) -> SwarmParallelEnv:
    """A swarm, `quad_swarm_v0`."""
    return SwarmParallelEnv(config)
