"""The swarm as a `World`: what a trainer steps, with the metrics of each episode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from coterie.envs.swarm import layout as at
from coterie.envs.swarm.config import SwarmConfig
from coterie.envs.swarm.kernel import Arrays
from coterie.envs.swarm.world import VecSwarm
from coterie.rng import stream
from coterie.types import WorldStep


class SwarmWorld:
    """E swarms of N drones; see `types.World`.

    Args:
        config: The world.
        num_envs: E.
        seed: Of all episodes.
        first_env: Index of the first environment.
        threads: See `VecSwarm`.
        device: Likewise.
    """

    def __init__(
        self,
        config: SwarmConfig,
        num_envs: int,
        seed: int,
        *,
        first_env: int = 0,
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.config, self.num_envs, self.device = config, num_envs, device
        self.swarm = VecSwarm(config, num_envs, seed, first_env=first_env, threads=threads, device=device)
        self.spec = config.spec
        self._live: Any = Arrays._make(map(torch.as_tensor, self.swarm.live))
        """The world's own memory as tensors, wherever it is."""
        shape, place = (num_envs, config.num_drones), self._live.flags.device
        self._earned = torch.zeros(shape, dtype=torch.float64, device=place)
        self._reached_at = torch.zeros(shape, dtype=torch.int32, device=place)
        """Tick at which the goal was reached; 0: not yet."""
        self._counted = torch.zeros(num_envs, dtype=torch.bool, device=place)
        """Whether the present episode is whole: neither replayed nor cut short."""

    @property
    def agent_steps(self) -> int:
        """Steps of all drones so far; annealing and curriculum follow it."""
        return self.swarm.agent_steps

    @agent_steps.setter
    def agent_steps(self, value: int) -> None:
        self.swarm.agent_steps = value

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Whose actions count, [E, N]."""
        return self.swarm.alive

    @property
    def done(self) -> NDArray[np.bool_]:
        """Which environments are over, [E]."""
        return self.swarm.done

    def reset(self, mask: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Begin episodes where mask [E] is set, or everywhere; observations [E, N, D]."""
        observation = self.swarm.reset(mask)
        chosen = torch.ones_like(self._counted) if mask is None else torch.as_tensor(mask)
        self._earned.masked_fill_(chosen[:, None], 0)
        self._reached_at.masked_fill_(chosen[:, None], 0)
        self._counted = torch.where(chosen, self._live.counters[:, at.REPLAYED] == 0, self._counted)
        return observation

    def stagger(self, seed: int) -> None:
        """Cut the present episodes short at random; see `World`."""
        first, ticks = self.swarm.first_env, self.config.ticks
        ends = [stream(seed, "stagger", first + env).integers(1, ticks + 1) for env in range(self.num_envs)]
        self._live.counters[:, at.ENDS] = torch.tensor(ends, dtype=torch.int32, device=self._counted.device)
        self._counted[:] = False

    def step(self, actions: ArrayLike) -> WorldStep:
        """One control step; actions [E, N, 4]."""
        step = self.swarm.step(actions)
        fresh = (self._live.flags & at.REACHED > 0) & (self._reached_at == 0)
        self._reached_at = torch.where(fresh, self._live.counters[:, at.TICK, None], self._reached_at)
        self._earned += self._live.reward
        return WorldStep(*step)

    def finished(self) -> list[dict[str, float | str]]:
        """Metrics of whole episodes that are over, replayed ones excepted; to be asked before their reset."""
        over = (torch.as_tensor(self.done) & self._counted).nonzero()[:, 0]
        if not len(over):
            return []
        self._counted[over] = False
        live = self._live
        told = (live.flags, live.counters, live.drones, self._earned, self._reached_at)
        return [self._metrics(*rows) for rows in zip(*(each[over].cpu().numpy() for each in told), strict=True)]

    def _metrics(
        self, flags: NDArray[Any], counters: NDArray[Any], drones: NDArray[Any], earned: Any, reached_at: Any
    ) -> dict[str, float | str]:
        hz, cells = self.config.control_hz, self._live.cells.shape[1]
        touched, hit = (flags & at.EVER_DRONE) > 0, (flags & at.EVER_OBSTACLE) > 0
        reached = (flags & at.REACHED) > 0
        clean = ~(touched | hit)
        n = self.config.num_drones
        metrics: dict[str, float | str] = {
            "success": float((reached & clean).mean()),
            "collision": float((~clean).mean()),
            "drone_collision": float(touched.mean()),
            "obstacle_collision": float(hit.mean()),
            "deadlock": float((clean & ~reached).mean()),
            "reached": float(reached.mean()),
            "wall_hits": float(counters[at.WALL_HITS]) / n,
            "floor_hits": float(counters[at.FLOOR_HITS]) / n,
            "ceiling_hits": float(counters[at.CEILING_HITS]) / n,
            "distance_1s": float(drones[at.NEAR_1S].mean()) / min(hz, counters[at.TICK]),
            "distance_5s": float(drones[at.NEAR_5S].mean()) / min(5 * hz, counters[at.TICK]),
            "reward": float(earned.mean()),
            "length": float(counters[at.TICK]),
            "contacts": float(counters[at.PAIR_CONTACTS] * 2 + counters[at.OBSTACLE_CONTACTS]) / n,
            "scenario": self.swarm.scenarios[counters[at.SCENARIO]],
            "density": float(counters[at.NUM_OBSTACLES]) / max(cells, 1),
        }
        if reached.any():
            metrics["flight_time"] = float(reached_at[reached].mean()) / hz
        return metrics

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Everything that decides what follows, as copies."""
        state = {f"swarm.{name}": value for name, value in self.swarm.state_dict().items()}
        return state | {name: value.cpu().numpy().copy() for name, value in self._tallies().items()}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Put it back.

        Raises:
            ResumeError: It is of another world.
        """
        self.swarm.load_state_dict({name[6:]: value for name, value in state.items() if name.startswith("swarm.")})
        for name, value in self._tallies().items():
            value.copy_(torch.from_numpy(np.asarray(state[name])))

    def _tallies(self) -> dict[str, Tensor]:
        return {"earned": self._earned, "reached_at": self._reached_at, "counted": self._counted}

    def close(self) -> None:
        """Let the threads go."""
        self.swarm.close()
