"""Steps of a world under a policy, collected into buffers that are made once."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from coterie.agents.learning.ppo import PPOLearner
from coterie.envs.joined import JoinedWorld
from coterie.types import World, WorldStep

Episode = dict[str, float | str]
Watch = Callable[[World, int], None]
"""Told of a world, or of a part of one, that it is about to make a step; where parts have threads, in that thread."""


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


class Walk:
    """One part of a world through all steps of a rollout.

    Attributes:
        simulator_seconds: Spent in the world.
        policy_seconds: Spent in the policy.
        ended: Metrics of the episodes that ended.
        finals: See `Rollout`.
    """

    def __init__(
        self, world: World, learner: PPOLearner, rollout: Rollout, noise: Tensor, watch: Watch | None = None
    ) -> None:
        self.world, self.learner, self.rollout, self.noise, self.watch = world, learner, rollout, noise, watch
        self.policy_seconds = self.simulator_seconds = 0.0
        self.ended: list[Episode] = []
        self.finals: list[tuple[int, Tensor, Tensor]] = []

    def run(self) -> None:
        """Fill the rollout, from its first observation on."""
        rollout = self.rollout
        for t in range(rollout.steps):
            started = time.perf_counter()
            action, log_prob = self.learner.act(rollout.observation[t].flatten(0, 1), self.noise[t].flatten(0, 1))
            rollout.action[t].copy_(action.view_as(rollout.action[t]))
            rollout.log_prob[t].copy_(log_prob.view_as(rollout.log_prob[t]))
            given = rollout.action[t] if self.world.device != "cpu" else rollout.action[t].cpu().numpy()
            acted = time.perf_counter()
            if self.watch is not None:
                self.watch(self.world, t)
            self._step(t, given)
            self.policy_seconds += acted - started
            self.simulator_seconds += time.perf_counter() - acted

    def _step(self, t: int, action: Any) -> None:
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
        cut, device = torch.as_tensor(step.truncated).nonzero()[:, 0], self.learner.device
        if len(cut):
            seen = torch.as_tensor(step.observation)[cut]
            self.finals.append((t, cut.to(device), seen.to(device)))


def find_parts(world: World) -> Sequence[World]:
    """The parts of a world that share nothing; itself, if it has none."""
    return world.parts if isinstance(world, JoinedWorld) else (world,)


def walk(world: World, learner: PPOLearner, rollout: Rollout, noise: Tensor, watch: Watch | None = None) -> list[Walk]:
    """Fill a rollout of a world, each part of which has a thread on a CPU: they need not wait for each other.

    Args:
        world: What is stepped.
        learner: Whose policy acts; it is asked once per step for all agents of a part.
        rollout: Its first observation is where the walk starts.
        noise: Of actions, [T, E, N, ...].
        watch: Told before each step.
    """
    parts = find_parts(world) if learner.device.type == "cpu" else (world,)
    edges = list(itertools.accumulate((part.num_envs for part in parts), initial=0))
    walks = [
        Walk(part, learner, rollout.of(slice(*between)), noise[:, slice(*between)], watch)
        for part, between in zip(parts, itertools.pairwise(edges), strict=True)
    ]
    learner.threads.map(Walk.run, walks)
    # Parts counted their own; each is told of all.
    world.agent_steps = world.agent_steps
    rollout.finals = [
        (t, envs + first, seen) for one, first in zip(walks, edges, strict=False) for t, envs, seen in one.finals
    ]
    return walks
