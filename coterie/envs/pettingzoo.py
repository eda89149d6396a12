"""Copies of any PettingZoo `ParallelEnv`, as one `World`."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from coterie.envs.actions import Boxes, Choices, read_actions
from coterie.errors import ConfigError, CoterieError, ResumeError
from coterie.rng import derive
from coterie.types import WorldSpec, WorldStep

Bools = NDArray[np.bool_]


class WorldError(CoterieError):
    """An environment broke, or did what its interface does not allow."""

    code = "E_WORLD"


class PettingZooWorld:
    """E copies of an environment; see `types.World`. They are stepped one after the other.

    What agents observe is flattened and filled up with zeros to the longest. Continuous actions in [-1, 1] are spread
    over the bounds of each agent's space, where it has any; of discrete ones, a number too high for an agent is its
    last. If agents differ in their spaces, or if asked for, each is also told which one it is.

    An episode is a function of the seed, the copy's index and its number; provided that the environment is one of the
    seed that `reset` gives it. Its state is kept as the actions since the last reset, and put back by doing them again.

    Args:
        make: Makes one copy.
        num_envs: E.
        seed: Of all episodes.
        first_env: Index of the first copy.
        tell_agents: Observations end with one number per agent, 1 for oneself; None: if they differ.

    Raises:
        ConfigError: Spaces that are not supported.
    """

    device = "cpu"

    def __init__(
        self,
        make: Callable[[], Any],
        num_envs: int,
        seed: int,
        *,
        first_env: int = 0,
        tell_agents: bool | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}: give at least 1")
        self._envs = [make() for _ in range(num_envs)]
        self.num_envs, self.seed, self.first_env, self.agent_steps = num_envs, seed, first_env, 0
        first = self._envs[0]
        self._names = list(getattr(first, "possible_agents", None) or ())
        if not self._names:
            raise ConfigError("the environment names no possible_agents", where="env",
                              remedy="train environments whose agents are known beforehand")  # fmt: skip
        self.agents: tuple[str, ...] = tuple(map(str, self._names))
        self._spaces = [first.observation_space(agent) for agent in self._names]
        self._sizes = [_flat_size(space) for space in self._spaces]
        self._actions: Boxes | Choices = read_actions([first.action_space(agent) for agent in self._names])
        differ = len(set(self._sizes)) > 1 or self._actions.differ
        self._told = differ if tell_agents is None else tell_agents
        n, size = len(self._names), max(self._sizes)
        self.spec = WorldSpec(n, size + (n if self._told else 0), self._actions.kind, self._actions.size)
        self._allocate()

    def _allocate(self) -> None:
        e, n = self.num_envs, self.spec.num_agents
        self._observation = np.zeros((e, n, self.spec.observation_size), np.float32)
        self._reward = np.zeros((e, n), np.float32)
        self._terminated = np.zeros((e, n), np.bool_)
        self._alive = np.zeros((e, n), np.bool_)
        self._truncated = np.zeros(e, np.bool_)
        self._done = np.ones(e, np.bool_)
        self._episode = np.zeros(e, np.int64)
        self._earned = np.zeros((e, n), np.float64)
        self._history: list[list[NDArray[Any]]] = [[] for _ in range(e)]
        self._told_of = np.zeros(e, np.bool_)
        """Whose end `finished` has reported."""

    @property
    def alive(self) -> Bools:
        """Whose actions count, [E, N]."""
        return self._alive

    @property
    def done(self) -> Bools:
        """Which copies are over, [E]."""
        return self._done

    def reset(self, mask: Bools | None = None) -> NDArray[np.float32]:
        """Begin episodes where mask [E] is set, or everywhere; observations [E, N, D]."""
        for env in range(self.num_envs) if mask is None else np.flatnonzero(mask):
            self._episode[env] += 1
            self._begin(int(env))
        return self._observation

    def stagger(self, seed: int) -> None:
        """Nothing: how long episodes are is not known before."""

    def _begin(self, env: int) -> None:
        self._history[env] = []
        with self._guard(env):
            observations, _ = self._envs[env].reset(seed=self._seed(env))
        self._earned[env], self._reward[env], self._terminated[env] = 0, 0, False
        self._truncated[env], self._done[env], self._told_of[env] = False, False, False
        self._observe(env, observations)

    def step(self, actions: ArrayLike) -> WorldStep:
        """One step of every copy that is not over."""
        given = np.asarray(actions)
        self._reward[:] = 0
        for env in np.flatnonzero(~self._done):
            self._history[env].append(given[env].copy())
            self._step(int(env), given[env])
        self.agent_steps += self.num_envs * self.spec.num_agents
        return WorldStep(self._observation, self._reward, self._terminated, self._truncated)

    def _step(self, env: int, actions: NDArray[Any]) -> None:
        chosen = {name: self._actions.read(i, actions[i]) for i, name in enumerate(self._names) if self._alive[env, i]}
        with self._guard(env):
            observations, rewards, terminated, truncated, _ = self._envs[env].step(chosen)
        for i, name in enumerate(self._names):
            if name in chosen:
                self._reward[env, i] = rewards.get(name, 0.0)
                self._terminated[env, i] = bool(terminated.get(name, False))
        self._earned[env] += self._reward[env]
        self._observe(env, observations)
        left = [name for name in chosen if not terminated.get(name, False)]
        # Agents that time cut off: they are not terminated, and yet no more there.
        self._truncated[env] = bool(left) and not self._alive[env].any()
        self._done[env] = not self._alive[env].any()
        if any(truncated.get(name, False) for name in left) and not self._done[env]:
            raise WorldError(
                "an environment cut some agents off while others go on, which is not supported",
                where=f"environment {self.first_env + env}",
                remedy="end the episode for all agents at the same time",
            )

    def _seed(self, env: int) -> int:
        """Of a copy's present episode."""
        return derive(self.seed, "episode", self.first_env + env, int(self._episode[env]))

    @contextlib.contextmanager
    def _guard(self, env: int) -> Iterator[None]:
        """Whatever an environment raises inside is said with the episode and the seed that repeat it."""
        try:
            yield
        except Exception as cause:
            line = traceback.extract_tb(cause.__traceback__)[-1]
            raise WorldError(
                f"an environment failed: {type(cause).__name__}: {cause}",
                where=f"environment {self.first_env + env}, episode {self._episode[env]}, step "
                f"{len(self._history[env])}, reset(seed={self._seed(env)}); {line.filename}:{line.lineno}",
                remedy="mend the environment; the last checkpoint is kept: coterie resume",
            ) from cause

    def _observe(self, env: int, observations: Mapping[Any, Any]) -> None:
        """Write what agents observe, zeros for those that do not, and who is alive."""
        there = set(self._envs[env].agents)
        for i, name in enumerate(self._names):
            row = self._observation[env, i]
            row[:] = 0
            self._alive[env, i] = name in there
            if name in observations and not self._terminated[env, i]:
                row[: self._sizes[i]] = spaces.flatten(self._spaces[i], observations[name])
                if self._told:
                    row[i - len(self._names)] = 1

    def finished(self) -> list[dict[str, float | str]]:
        """Return and length of each episode that ended; to be asked before their reset."""
        over = np.flatnonzero(self._done & ~self._told_of & (self._episode > 0))
        self._told_of[over] = True
        return [{"reward": float(self._earned[env].mean()), "length": float(len(self._history[env]))} for env in over]

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Number of each copy's episode and the actions since it began."""
        lengths = np.array([len(one) for one in self._history], np.int64)
        past = [step for one in self._history for step in one]
        shape = (self.spec.num_agents,) + ((self._actions.size,) if self.spec.action == "continuous" else ())
        return {
            "episode": self._episode.copy(), "lengths": lengths, "agent_steps": np.asarray(self.agent_steps, np.int64),
            "actions": np.stack(past) if past else np.zeros((0, *shape)), "told_of": self._told_of.copy(),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Begin each copy's episode again and do what was done in it.

        Raises:
            ResumeError: It is of another world.
        """
        if state["episode"].shape != self._episode.shape:
            raise ResumeError("the state of a world is of another one", where="episode",
                              remedy="resume with the same number of environments")  # fmt: skip
        self._episode[:] = state["episode"]
        parts = np.split(state["actions"], np.cumsum(state["lengths"])[:-1])
        for env, past in enumerate(parts):
            if self._episode[env]:
                self._begin(env)
                for actions in past:
                    self._reward[env] = 0
                    self._history[env].append(actions.copy())
                    self._step(env, actions)
        self._told_of[:], self.agent_steps = state["told_of"], int(state["agent_steps"])

    def close(self) -> None:
        """Close all copies."""
        for env in self._envs:
            env.close()


def _flat_size(space: spaces.Space[Any]) -> int:
    if not space.is_np_flattenable:
        raise ConfigError(f"agents observe a space of kind {type(space).__name__}, which is no list of numbers",
                          where="env", remedy="train environments whose observations can be flattened")  # fmt: skip
    return int(spaces.flatdim(space))
