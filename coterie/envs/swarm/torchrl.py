"""The world as a TorchRL environment, in the shapes that BenchMARL and TorchRL's multi-agent losses read."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from coterie.envs.swarm.config import SwarmConfig
from coterie.envs.swarm.world import VecSwarm

GROUP = "agents"
"""Key of what belongs to each drone."""


class SwarmTorchRLEnv(EnvBase):  # type: ignore[misc]
    """E swarms as one environment of batch size [E].

    Under "agents", a dictionary of batch size [E, N]: observation [E, N, D], action [E, N, 4], reward [E, N, 1]. At the
    root done, terminated (all drones are lost) and truncated (the time is up), [E, 1]. What is returned is a copy.

    Args:
        config: The world; None: the default.
        num_envs: E.
        seed: See `VecSwarm`.
        device: Likewise.
    """

    metadata = {"name": "quad_swarm_v0"}

    def __init__(
        self, config: SwarmConfig | None = None, num_envs: int = 1, seed: int = 0, device: str = "cpu"
    ) -> None:
        self.config = config or SwarmConfig()
        super().__init__(device=torch.device(device), batch_size=[num_envs])
        self.world = VecSwarm(self.config, num_envs, seed, device=device)
        self.group_map = {GROUP: [f"drone_{i}" for i in range(self.config.num_drones)]}
        each = (num_envs, self.config.num_drones)
        self.observation_spec = self._grouped(observation=Unbounded((*each, self.config.observation_size)))
        self.action_spec = self._grouped(action=Bounded(-1.0, 1.0, (*each, 4)))
        self.reward_spec = self._grouped(reward=Unbounded((*each, 1)))
        ends = {name: Categorical(2, (num_envs, 1), dtype=torch.bool) for name in ("done", "terminated", "truncated")}
        self.done_spec = Composite(ends, shape=self.batch_size, device=self.device)

    def _grouped(self, **specs: Any) -> Composite:
        group = Composite(specs, shape=(*self.batch_size, self.config.num_drones))
        return Composite({GROUP: group}, shape=self.batch_size, device=self.device)

    def _set_seed(self, seed: int | None) -> None:
        if seed is not None:
            self.world.seed(seed)

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        mask: Any = None if tensordict is None else tensordict.get("_reset", None)
        observation = self.world.reset(None if mask is None else mask.reshape(self.world.num_envs))
        return self._told({"observation": observation})

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        step = self.world.step(tensordict[GROUP, "action"])
        return self._told({"observation": step.observation, "reward": torch.as_tensor(step.reward)[..., None]})

    def _told(self, agents: dict[str, Any]) -> TensorDictBase:
        done, alive = torch.as_tensor(self.world.done), torch.as_tensor(self.world.alive)
        # To quad-swarm-rl a time limit is an end like any other.
        terminated: Tensor = done if self.config.compat == "quad_swarm_rl" else ~alive.any(1)
        ends = {"done": done, "terminated": terminated, "truncated": done & ~terminated}
        each = {name: torch.as_tensor(value).clone() for name, value in agents.items()}
        group = TensorDict(each, (*self.batch_size, self.config.num_drones))
        at_root = {name: value[:, None].clone() for name, value in ends.items()}
        return TensorDict({GROUP: group, **at_root}, self.batch_size, device=self.device)

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Let go of the world."""
        self.world.close()
        super().close(raise_if_closed=raise_if_closed)
