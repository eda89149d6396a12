"""Trains a policy in a world: steps are collected, judged, and learnt from, again and again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from coterie.agents.learning.ppo import Batch, LearningError, PPOLearner
from coterie.agents.learning.settings import PPOSettings
from coterie.agents.learning.threads import single_threaded
from coterie.errors import ResumeError
from coterie.orchestration import checkpoints
from coterie.orchestration.rollout import Collector, Episode
from coterie.rewards import advantage
from coterie.types import World

WEIGHTS = "weights"
"""File of a checkpoint that holds all that evaluation needs; its names begin with `actor.` and `critic.`."""


@dataclass(frozen=True, slots=True)
class IterationRecord:
    """Facts of one iteration: the same for the same seed, whenever and however often it was interrupted.

    Attributes:
        iteration: From 1.
        agent_steps: Of all iterations so far, of agents that are alive or not.
        episodes: That ended, and are in `metrics`.
        reward: Per agent-step, mean over those that count.
        metrics: Means over these episodes, of those that have the metric.
        learning: See `Update`; and `explained_variance` of returns by the critic.
        weights: SHA-256 of what was learnt.
    """

    iteration: int
    agent_steps: int
    episodes: int
    reward: float
    metrics: Mapping[str, float]
    learning: Mapping[str, float]
    weights: str


@dataclass(slots=True)
class Timings:
    """Where the time went so far, in seconds: telemetry, no facts."""

    simulator: float = 0.0
    policy: float = 0.0
    learner: float = 0.0


class Trainer:
    """Collects, learns, and keeps what is needed to go on after a stop.

    Args:
        world: Where the agents act.
        learner: What they learn.
        seed: Of all noise and of the order of minibatches; weights and worlds have their own.

    Attributes:
        iteration: How many were done.
        timings: Telemetry.
    """

    def __init__(self, world: World, learner: PPOLearner, seed: int) -> None:
        self.world, self.learner, self.seed = world, learner, seed
        self.settings: PPOSettings = learner.settings
        self.iteration, self.timings = 0, Timings()
        self._collector = Collector(world, learner, self.settings.rollout, seed)

    @property
    def is_done(self) -> bool:
        """Whether as many steps were made as the settings ask for."""
        return self.world.agent_steps >= self.settings.agent_steps

    def iterate(self) -> IterationRecord:
        """Collect a rollout and learn from it.

        Raises:
            PhysicsError: The world broke; it says where.
            LearningError: A number is none.
        """
        with single_threaded():
            return self._iterate()

    def _iterate(self) -> IterationRecord:
        collector = self._collector
        if self.iteration == 0:
            collector.begin()
        ended = collector.collect(self.iteration)
        started = time.perf_counter()
        try:
            learning = self._learn()
        except LearningError as error:
            raise LearningError(error.what, where=self._place(), remedy=error.remedy) from error
        self.iteration += 1
        weights = checkpoints.digest(self._weights())
        self.timings.learner += time.perf_counter() - started
        self.timings.simulator, self.timings.policy = collector.simulator_seconds, collector.policy_seconds
        rollout = collector.rollout
        reward = float(rollout.reward[rollout.alive].double().mean()) if bool(rollout.alive.any()) else 0.0
        return IterationRecord(
            self.iteration, self.world.agent_steps, len(ended), reward, summarise(ended), learning, weights
        )

    def _place(self) -> str:
        found = self._collector.rollout.first_broken()
        place = f"iteration {self.iteration + 1}, agent-step {self.world.agent_steps}, seed {self.seed}"
        return place if found is None else f"{place}, step {found[0]} of the rollout, environment {found[1]}"

    def _learn(self) -> dict[str, float]:
        rollout, settings, learner = self._collector.rollout, self.settings, self.learner
        if rollout.first_broken() is not None:
            raise LearningError(
                "an observation, a reward or a log-probability is no number",
                remedy="look at the world: begin that environment again with that seed and the last checkpoint",
            )
        flat = rollout.observation.flatten(0, 2)
        value = learner.judge(flat).view(rollout.observation.shape[:3])
        result = advantage.gae(
            rollout.reward, value[:-1], self._next_value(value), terminated=rollout.terminated,
            truncated=rollout.truncated[..., None], alive=rollout.alive, discount=settings.discount,
            trace=settings.trace, timeouts_terminate=settings.timeouts_terminate,
        )  # fmt: skip
        explained = _explained_variance(value[:-1][rollout.alive], result.target[rollout.alive])
        batch = Batch(
            observation=flat[: rollout.alive.numel()], action=rollout.action.flatten(0, 2),
            log_prob=rollout.log_prob.flatten(), value=value[:-1].flatten(), target=result.target.flatten(),
            advantage=advantage.normalise(result.advantage, rollout.alive).flatten(), alive=rollout.alive.flatten(),
        )  # fmt: skip
        return {**asdict(learner.update(batch, self.seed, self.iteration)), "explained_variance": explained}

    def _next_value(self, value: Tensor) -> Tensor:
        """Of what each step led to, [T, E, N]: where the time was up, of the last observation, not of the next."""
        finals, following = self._collector.rollout.finals, value[1:].clone()
        if finals:
            last = self.learner.judge(torch.cat([seen for _, _, seen in finals]).flatten(0, 1))
            steps = torch.cat([torch.full_like(envs, t) for t, envs, _ in finals])
            following[steps, torch.cat([envs for _, envs, _ in finals])] = last.view(-1, value.shape[2])
        return following

    def _weights(self) -> dict[str, Tensor]:
        return self.learner.weights()

    def save(self, folder: Path) -> str:
        """Write all that the next iterations depend on, in two phases; the checkpoint's SHA-256."""
        state = {name: torch.from_numpy(np.asarray(value)) for name, value in self.world.state_dict().items()}
        state["observation.next"] = self._collector.rollout.observation[-1]
        files = {WEIGHTS: self._weights(), "optimiser": self.learner.optimiser_state(), "world": state}
        facts = {"iteration": self.iteration, "agent_steps": self.world.agent_steps, "seed": self.seed,
                 "learning_rate": self.learner.rate}  # fmt: skip
        return checkpoints.write(folder, files, facts)

    def load(self, folder: Path) -> None:
        """Go on from there.

        Raises:
            ResumeError: It cannot be read, or is of another training.
        """
        files, facts = checkpoints.read(folder)
        if facts.get("seed") != self.seed:
            raise ResumeError(f"the checkpoint has seed {facts.get('seed')}, this run {self.seed}", where=str(folder))
        world = files["world"]
        seen = world.pop("observation.next")
        self.learner.load(files[WEIGHTS], files["optimiser"], facts["learning_rate"])
        self.world.load_state_dict({name: value.numpy() for name, value in world.items()})
        self._collector.see(seen)
        self.iteration = int(facts["iteration"])


def summarise(episodes: Sequence[Episode]) -> dict[str, float]:
    """Mean of each metric that is a number, over the episodes that have it."""
    names = sorted({name for one in episodes for name, value in one.items() if not isinstance(value, str)})
    return {name: float(np.mean([one[name] for one in episodes if name in one])) for name in names}


def _explained_variance(value: Tensor, target: Tensor) -> float:
    """1 less the share of the targets' variance that the values leave; 0 where there is none."""
    if len(target) < 2:
        return 0.0
    total = float(target.double().var())
    return 1 - float((target - value).double().var()) / total if total > 0 else 0.0
