"""The swarm as a `World`: what a trainer steps, with the metrics of each episode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coterie.envs.swarm import layout as at
from coterie.envs.swarm.config import SwarmConfig
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
    """

    def __init__(
        self, config: SwarmConfig, num_envs: int, seed: int, *, first_env: int = 0, threads: int | None = None
    ) -> None:
        self.config, self.num_envs = config, num_envs
        self.swarm = VecSwarm(config, num_envs, seed, first_env=first_env, threads=threads)
        self.spec = config.spec
        shape = (num_envs, config.num_drones)
        self._earned = np.zeros(shape, np.float64)
        self._reached_at = np.zeros(shape, np.int32)
        """Tick at which the goal was reached; 0: not yet."""
        self._counted = np.zeros(num_envs, np.bool_)
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
        chosen = np.ones(self.num_envs, np.bool_) if mask is None else mask
        observation = self.swarm.reset(chosen)
        counters = self.swarm.arrays.counters
        self._earned[chosen], self._reached_at[chosen] = 0, 0
        self._counted[chosen] = counters[chosen, at.REPLAYED] == 0
        return observation

    def stagger(self, seed: int) -> None:
        """Cut the present episodes short at random; see `World`."""
        for env in range(self.num_envs):
            place = self.swarm.first_env + env
            self.swarm.arrays.counters[env, at.ENDS] = stream(seed, "stagger", place).integers(1, self.config.ticks + 1)
        self._counted[:] = False

    def step(self, actions: ArrayLike) -> WorldStep:
        """One control step; actions [E, N, 4]."""
        step = self.swarm.step(actions)
        flags, ticks = self.swarm.arrays.flags, self.swarm.arrays.counters[:, at.TICK]
        fresh = (flags & at.REACHED > 0) & (self._reached_at == 0)
        if fresh.any():
            self._reached_at[fresh] = np.broadcast_to(ticks[:, None], fresh.shape)[fresh]
        self._earned += step.reward
        return WorldStep(*step)

    def finished(self) -> list[dict[str, float | str]]:
        """Metrics of whole episodes that are over, replayed ones excepted; to be asked before their reset."""
        over = np.flatnonzero(self.done & self._counted)
        self._counted[over] = False
        return [self._metrics(int(env)) for env in over]

    def _metrics(self, env: int) -> dict[str, float | str]:
        a = self.swarm.arrays
        flags, counters, drones = a.flags[env], a.counters[env], a.drones[env]
        hz = self.config.control_hz
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
            "reward": float(self._earned[env].mean()),
            "length": float(counters[at.TICK]),
            "contacts": float(counters[at.PAIR_CONTACTS] * 2 + counters[at.OBSTACLE_CONTACTS]) / n,
            "scenario": self.swarm.scenarios[counters[at.SCENARIO]],
            "density": float(counters[at.NUM_OBSTACLES]) / max(a.cells.shape[1], 1),
        }
        if reached.any():
            metrics["flight_time"] = float(self._reached_at[env][reached].mean()) / hz
        return metrics

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Everything that decides what follows, as copies."""
        state = {f"swarm.{name}": value for name, value in self.swarm.state_dict().items()}
        return state | {name: value.copy() for name, value in self._tallies().items()}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Put it back.

        Raises:
            ResumeError: It is of another world.
        """
        self.swarm.load_state_dict({name[6:]: value for name, value in state.items() if name.startswith("swarm.")})
        for name, value in self._tallies().items():
            value[...] = state[name]

    def _tallies(self) -> dict[str, NDArray[Any]]:
        return {"earned": self._earned, "reached_at": self._reached_at, "counted": self._counted}

    def close(self) -> None:
        """Let the threads go."""
        self.swarm.close()
