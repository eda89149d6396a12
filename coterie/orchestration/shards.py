"""A shard: some environments of a world, what is collected in them, and what that teaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coterie.agents.learning import draws
from coterie.agents.learning.ppo import Batch, Gradient, LearningError, PPOLearner
from coterie.orchestration.rollout import Episode, Rollout, Walk, walk
from coterie.orchestration.world_credit import WorldCredit, give
from coterie.rewards.credit.world import Shares, average
from coterie.rewards.gae import gae
from coterie.types import World

NEXT = "observation.next"
"""What the next rollout starts with, among the state of a shard."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What a shard tells of its rollout: one number for each of its agent-steps. What was observed stays in it.

    Attributes:
        reward: float32 [T, E, N].
        value: What the critic expected, in returns, [T, E, N].
        advantage: See `rewards.gae.Advantages`, [T, E, N].
        target: Likewise.
        alive: Whose steps count, bool [T, E, N].
        seen: What the normaliser of observations measured in those, [3, D]; None without one.
        episodes: Metrics of those that ended.
        agent_steps: That were made.
        simulator_seconds: Spent in the world.
        policy_seconds: Spent in the policy.
        shared: What agents learn from in place of their reward, [T, E, N]; None: their reward.
        foreseen: See `rewards.credit.world.Shares`.
    """

    reward: Tensor
    value: Tensor
    advantage: Tensor
    target: Tensor
    alive: Tensor
    seen: Tensor | None
    episodes: list[Episode]
    agent_steps: int
    simulator_seconds: float
    policy_seconds: float
    shared: Tensor | None = None
    foreseen: Tensor | None = None


class Shard:
    """Some environments with a learner's networks, in one process.

    Args:
        world: These environments alone.
        learner: Whose policy acts and whose critic judges.
        seed: Of the noise in actions.
        first_env: Index of the first environment.
        credit: What of their team's reward agents learn from; None: each from what the world gives it.
    """

    def __init__(
        self, world: World, learner: PPOLearner, seed: int, first_env: int = 0, credit: WorldCredit | None = None
    ) -> None:
        self.world, self._learner, self._seed, self._first_env = world, learner, seed, first_env
        self._credit = credit
        self._rollout = Rollout(world, learner.settings.rollout, learner.device)
        self._collected: Collected | None = None
        self._batch: Batch | None = None

    def begin(self) -> None:
        """Reset the world; what it observes is where the first rollout starts."""
        self._see(self.world.reset())
        self.world.stagger(self._seed)

    def _see(self, observation: NDArray[np.float32]) -> None:
        self._rollout.observation[-1].copy_(torch.as_tensor(observation))

    def collect(self, iteration: int, agent_steps: int) -> Collected:
        """Step from where the last rollout ended, and judge what happened.

        Args:
            iteration: Noise is counted by it.
            agent_steps: Of all shards so far.

        Raises:
            PhysicsError: The world broke.
            LearningError: A number is none; says where.
            CreditError: A rule broke its promise.
        """
        rollout, world, credit = self._rollout, self.world, self._credit
        rollout.observation[0].copy_(rollout.observation[-1])
        world.agent_steps = agent_steps
        if credit is not None:
            credit.begin(iteration)
        walks = walk(world, self._learner, rollout, self._noise(iteration), None if credit is None else credit.watch)
        if (broken := rollout.first_broken()) is not None:
            raise LearningError(
                "an observation, a reward or a log-probability is no number",
                where=f"step {broken[0]} of the rollout, environment {self._first_env + broken[1]}",
                remedy="look at the world: begin that environment again with that seed and the last checkpoint",
            )
        self._collected = self._judge(walks, world.agent_steps - agent_steps)
        return self._collected

    def _noise(self, iteration: int) -> Tensor:
        draw = draws.uniforms if self.world.spec.action == "discrete" else draws.normals
        place = (self._first_env,) if self._first_env else ()
        return draw(self._rollout.action.shape, self._learner.device, self._seed, "actions", iteration, *place)

    def _judge(self, walks: list[Walk], steps: int) -> Collected:
        rollout, learner, settings = self._rollout, self._learner, self._learner.settings
        value = learner.judge(rollout.observation.flatten(0, 2)).view(rollout.observation.shape[:3])
        given = Shares(rollout.reward) if self._credit is None else give(self._credit, rollout)
        found = gae(
            given.reward, value[:-1], self._next_value(value), terminated=rollout.terminated,
            truncated=rollout.truncated[..., None], alive=rollout.alive, discount=settings.discount,
            trace=settings.trace, timeouts_terminate=settings.timeouts_terminate,
        )  # fmt: skip
        normaliser = learner.observations
        seen = None if normaliser is None else normaliser.measure(rollout.observation[:-1][rollout.alive])
        # Of threads: the mean, as they work at the same time.
        together = learner.threads.at_once(len(walks))
        return Collected(
            rollout.reward, value[:-1], found.advantage, found.target, rollout.alive, seen,
            [episode for one in walks for episode in one.ended], steps,
            sum(one.simulator_seconds for one in walks) / together,
            sum(one.policy_seconds for one in walks) / together,
            None if self._credit is None else given.reward, given.foreseen,
        )  # fmt: skip

    def _next_value(self, value: Tensor) -> Tensor:
        """Of what each step led to, [T, E, N]: where the time was up, of the last observation, not of the next."""
        finals, following = self._rollout.finals, value[1:].clone()
        if finals:
            last = self._learner.judge(torch.cat([seen for _, _, seen in finals]).flatten(0, 1))
            steps = torch.cat([torch.full_like(envs, t) for t, envs, _ in finals])
            following[steps, torch.cat([envs for _, envs, _ in finals])] = last.view(-1, value.shape[2])
        return following

    def prepare(self, normalised: Tensor) -> None:
        """Make what was collected ready to be differentiated.

        Args:
            normalised: Its advantages, over those of all shards, [T, E, N].
        """
        rollout, told = self._rollout, self._collected
        assert told is not None, "nothing was collected"
        batch = Batch(
            observation=rollout.observation.flatten(0, 2)[: rollout.alive.numel()],
            action=rollout.action.flatten(0, 2), log_prob=rollout.log_prob.flatten(), value=told.value.flatten(),
            target=told.target.flatten(), advantage=normalised.flatten(), alive=rollout.alive.flatten(),
        )  # fmt: skip
        if self._learner.team is not None:
            earned = average(rollout.reward, rollout.alive).float().expand_as(rollout.reward)
            batch = batch._replace(team_reward=earned.flatten())
        self._batch = self._learner.prepare(batch)

    def differentiate(self, rows: Tensor, total: Tensor) -> Gradient:
        """What some of its agent-steps teach, in a minibatch of which `total` count.

        Args:
            rows: Counted in this shard.
            total: In all shards.
        """
        assert self._batch is not None, "nothing was prepared"
        return self._learner.differentiate(self._batch, rows, total)

    def state_dict(self, agent_steps: int) -> dict[str, NDArray[Any]]:
        """All that the next rollout depends on but for the weights, as copies.

        Args:
            agent_steps: Of all shards so far.
        """
        self.world.agent_steps = agent_steps
        return {**self.world.state_dict(), NEXT: self._rollout.observation[-1].cpu().numpy().copy()}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Put it back.

        Raises:
            ResumeError: It is of another world.
        """
        self.world.load_state_dict({name: value for name, value in state.items() if name != NEXT})
        self._see(state[NEXT])
