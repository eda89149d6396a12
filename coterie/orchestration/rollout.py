"""Steps of a world under a policy, collected into buffers that are made once."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coterie.agents.learning import draws
from coterie.agents.learning.ppo import PPOLearner
from coterie.envs.joined import JoinedWorld
from coterie.types import World, WorldStep

Episode = dict[str, float | str]


class Rollout:
    """T steps of E environments of N agents, in tensors [T, E, N, ...] on one device.

    Attributes:
        observation: float32 [T + 1, E, N, D]; the last is what the next rollout begins with.
        action: float32 [T, E, N, A] or int64 [T, E, N].
        log_prob: [T, E, N].
        reward: [T, E, N].
        terminated: bool [T, E, N].
        truncated: bool [T, E].
        alive: bool [T, E, N], whose steps count.
        finals: For each step at which the time was up somewhere: the step, the environments [k], and what their
            agents observed at the end [k, N, D].
    """

    def __init__(self, world: World, steps: int, device: torch.device) -> None:
        spec, shape = world.spec, (steps, world.num_envs, world.spec.num_agents)
        discrete = spec.action == "discrete"

        def zeros(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(sizes, dtype=dtype, device=device)

        self.steps = steps
        self.observation = zeros(steps + 1, *shape[1:], spec.observation_size)
        self.action = zeros(*shape, dtype=torch.int64) if discrete else zeros(*shape, spec.action_size)
        self.log_prob, self.reward = zeros(*shape), zeros(*shape)
        self.terminated, self.alive = zeros(*shape, dtype=torch.bool), zeros(*shape, dtype=torch.bool)
        self.truncated = zeros(*shape[:2], dtype=torch.bool)
        self.finals: list[tuple[int, Tensor, Tensor]] = []

    def of(self, envs: slice) -> Rollout:
        """The part of some environments, in the same memory."""
        part = copy.copy(self)
        for name in ("observation", "action", "log_prob", "reward", "terminated", "truncated", "alive"):
            setattr(part, name, getattr(self, name)[:, envs])
        return part

    def first_broken(self) -> tuple[int, int] | None:
        """Step and environment of the first number that is none; None: all are finite."""
        parts = (self.observation[: self.steps], self.reward[..., None], self.log_prob[..., None])
        if all(bool(part.isfinite().all()) for part in parts):
            return None
        broken = torch.stack([~part.isfinite().flatten(2).all(2) for part in parts]).any(0).nonzero()
        return int(broken[0, 0]), int(broken[0, 1])


class Collector:
    """Steps a world with a learner's policy, which is asked once per step for all agents of a part of the world.

    Attributes:
        rollout: What was collected last.
        simulator_seconds: Spent in the world so far.
        policy_seconds: Spent in the policy so far.

    Args:
        world: What is stepped.
        learner: Whose policy acts.
        steps: T.
        seed: Of the noise in actions.
    """

    def __init__(self, world: World, learner: PPOLearner, steps: int, seed: int) -> None:
        self.world, self._learner, self._seed = world, learner, seed
        self.rollout = Rollout(world, steps, learner.device)
        self.simulator_seconds = self.policy_seconds = 0.0

    def begin(self) -> None:
        """Reset the world; what it observes is where the first rollout starts."""
        self.see(self.world.reset())
        self.world.stagger(self._seed)

    def see(self, observation: NDArray[np.float32] | Tensor) -> None:
        """Put what the next rollout starts with, [E, N, D]."""
        self.rollout.observation[self.rollout.steps].copy_(torch.as_tensor(observation))

    def collect(self, iteration: int) -> list[Episode]:
        """Fill the rollout, from where the last one ended; metrics of the episodes that ended in it."""
        rollout, learner, world = self.rollout, self._learner, self.world
        rollout.observation[0].copy_(rollout.observation[rollout.steps])
        draw = draws.uniforms if world.spec.action == "discrete" else draws.normals
        noise = draw(rollout.action.shape, learner.device, self._seed, "actions", iteration)
        # On a CPU each part of a world has its thread; they need not wait for each other.
        parts: Sequence[World] = world.parts if isinstance(world, JoinedWorld) and self._on_cpu else (world,)
        edges = list(itertools.accumulate((part.num_envs for part in parts), initial=0))
        walks = [
            _Walk(part, learner, rollout.of(slice(*between)), noise[:, slice(*between)])
            for part, between in zip(parts, itertools.pairwise(edges), strict=True)
        ]
        learner.threads.map(_Walk.run, walks)
        # Parts counted their own; each is told of all.
        world.agent_steps = world.agent_steps
        rollout.finals = [
            (t, envs + first, seen) for walk, first in zip(walks, edges, strict=False) for t, envs, seen in walk.finals
        ]
        # Of threads: the mean, as they work at the same time.
        self.policy_seconds += sum(walk.policy_seconds for walk in walks) / min(len(walks), learner.threads.count)
        self.simulator_seconds += sum(walk.simulator_seconds for walk in walks) / min(len(walks), learner.threads.count)
        return [episode for walk in walks for episode in walk.ended]

    @property
    def _on_cpu(self) -> bool:
        return self._learner.device.type == "cpu"


class _Walk:
    """One part of a world through all steps of a rollout."""

    def __init__(self, world: World, learner: PPOLearner, rollout: Rollout, noise: Tensor) -> None:
        self.world, self.learner, self.rollout, self.noise = world, learner, rollout, noise
        self.policy_seconds = self.simulator_seconds = 0.0
        self.ended: list[Episode] = []
        self.finals: list[tuple[int, Tensor, Tensor]] = []

    def run(self) -> None:
        rollout = self.rollout
        for t in range(rollout.steps):
            started = time.perf_counter()
            action, log_prob = self.learner.act(rollout.observation[t].flatten(0, 1), self.noise[t].flatten(0, 1))
            rollout.action[t].copy_(action.view_as(rollout.action[t]))
            rollout.log_prob[t].copy_(log_prob.view_as(rollout.log_prob[t]))
            given = rollout.action[t].cpu().numpy()
            acted = time.perf_counter()
            self._step(t, given)
            self.policy_seconds += acted - started
            self.simulator_seconds += time.perf_counter() - acted

    def _step(self, t: int, action: NDArray[Any]) -> None:
        rollout, world = self.rollout, self.world
        rollout.alive[t].copy_(torch.as_tensor(world.alive))
        step = world.step(action)
        rollout.reward[t].copy_(torch.as_tensor(step.reward))
        rollout.terminated[t].copy_(torch.as_tensor(step.terminated))
        rollout.truncated[t].copy_(torch.as_tensor(step.truncated))
        over, observation = world.done, step.observation
        if over.any():
            self._keep_finals(t, step)
            self.ended += world.finished()
            observation = world.reset(over)
        rollout.observation[t + 1].copy_(torch.as_tensor(observation))

    def _keep_finals(self, t: int, step: WorldStep) -> None:
        cut, device = np.flatnonzero(step.truncated), self.learner.device
        if len(cut):
            seen = torch.as_tensor(step.observation[cut], device=device)
            self.finals.append((t, torch.as_tensor(cut, device=device), seen))
