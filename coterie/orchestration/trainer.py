"""Trains a policy in a world: steps are collected, judged, and learnt from, again and again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from coterie.agents.learning.losses import explained_variance
from coterie.agents.learning.ppo import Gradient, LearningError, add
from coterie.agents.learning.settings import PPOSettings
from coterie.agents.learning.threads import single_threaded
from coterie.errors import ResumeError
from coterie.orchestration import checkpoints
from coterie.orchestration.crew import Crew, State, share
from coterie.orchestration.rollout import Episode
from coterie.orchestration.shards import NEXT, Collected
from coterie.rewards.credit.world import agree, average
from coterie.rewards.gae import normalise

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
        learning: See `Update`; and `explained_variance` of returns by the critic. With credit also `credit_agreement`,
            the correlation within teams of what agents learnt from with what the world gave each by itself, and
            `credit_explained`, the share of the variance of team rewards that the rule foresaw, if it foresees any.
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
    """Where the time went so far, in seconds: telemetry, no facts. The learner's is all but the first two."""

    simulator: float = 0.0
    policy: float = 0.0
    learner: float = 0.0


class Trainer:
    """Collects, learns, and keeps what is needed to go on after a stop.

    Args:
        crew: Where the agents act and what they do is judged.
        seed: Of the order of minibatches; noise, weights and worlds have their own.

    Attributes:
        iteration: How many were done.
        agent_steps: Likewise, of all agents.
        timings: Telemetry.
    """

    def __init__(self, crew: Crew, seed: int) -> None:
        self.crew, self.learner, self.seed = crew, crew.learner, seed
        self.settings: PPOSettings = self.learner.settings
        self.iteration, self.agent_steps, self.timings = 0, 0, Timings()

    @property
    def is_done(self) -> bool:
        """Whether as many steps were made as the settings ask for."""
        return self.agent_steps >= self.settings.agent_steps

    def iterate(self) -> IterationRecord:
        """Collect a rollout and learn from it.

        Raises:
            PhysicsError: The world broke; it says where.
            LearningError: A number is none.
            WorkerLost: Processes of the crew died again and again.
        """
        with single_threaded():
            return self._iterate()

    def _iterate(self) -> IterationRecord:
        started = time.perf_counter()
        if self.iteration == 0:
            self.crew.begin()
        try:
            found = self.crew.collect(self.iteration, self.agent_steps)
            learning = self._learn(found)
        except LearningError as error:
            where = f"iteration {self.iteration + 1}, agent-step {self.agent_steps}, seed {self.seed}"
            place = ", ".join(filter(None, (where, error.where)))
            raise LearningError(error.what, where=place, remedy=error.remedy) from error
        self.iteration += 1
        self.agent_steps += sum(one.agent_steps for one in found)
        weights = checkpoints.digest(self.learner.weights())
        self._tell_time(found, time.perf_counter() - started)
        reward, alive = (_join([getattr(one, name) for one in found]) for name in ("reward", "alive"))
        mean = float(reward[alive].double().mean()) if bool(alive.any()) else 0.0
        ended = [episode for one in found for episode in one.episodes]
        return IterationRecord(self.iteration, self.agent_steps, len(ended), mean, summarise(ended), learning, weights)

    def _tell_time(self, found: Sequence[Collected], seconds: float) -> None:
        simulator = sum(one.simulator_seconds for one in found) / self.crew.at_once
        policy = sum(one.policy_seconds for one in found) / self.crew.at_once
        self.timings.simulator += simulator
        self.timings.policy += policy
        self.timings.learner += max(seconds - simulator - policy, 0.0)

    def _learn(self, found: Sequence[Collected]) -> dict[str, float]:
        learner, crew = self.learner, self.crew
        value, target, gained, alive = (
            _join([getattr(one, name) for one in found]) for name in ("value", "target", "advantage", "alive")
        )
        explained = explained_variance(value[alive], target[alive])
        if learner.values is not None:
            learner.values.update(target[alive])
        credit = self._tell_credit(found, alive)
        crew.prepare(torch.split(normalise(gained, alive), list(crew.sizes), 1))
        done = self.agent_steps + sum(one.agent_steps for one in found)
        remaining = 1 - done / self.settings.agent_steps
        update = learner.update(alive.flatten(), self._differentiate, self.seed, self.iteration, remaining)
        if learner.observations is not None:
            learner.observations.take(_add([one.seen for one in found if one.seen is not None]))
        return {**asdict(update), "explained_variance": explained, **credit}

    def _tell_credit(self, found: Sequence[Collected], alive: Tensor) -> dict[str, float]:
        """What a rule of credit did, and what its critic is to learn from."""
        if any(one.shared is None for one in found):
            return {}
        reward, shared = (_join([getattr(one, name) for one in found]) for name in ("reward", "shared"))
        facts, earned = {"credit_agreement": agree(shared, reward, alive)}, average(reward, alive).expand_as(reward)
        if self.learner.team_rewards is not None:
            foreseen = _join([one.foreseen for one in found if one.foreseen is not None])
            facts["credit_explained"] = explained_variance(foreseen[alive], earned[alive])
            self.learner.team_rewards.update(earned[alive])
        return facts

    def _differentiate(self, rows: Tensor, total: Tensor) -> Gradient:
        return add(self.crew.differentiate(share(rows, self.crew.sizes, self.learner.num_agents), total))

    def save(self, folder: Path) -> str:
        """Write all that the next iterations depend on, in two phases; the checkpoint's SHA-256."""
        state = _merge(self.crew.states(self.agent_steps))
        world = {name: torch.from_numpy(np.asarray(value)) for name, value in state.items()}
        files = {WEIGHTS: self.learner.weights(), "optimiser": self.learner.optimiser_state(), "world": world}
        facts = {"iteration": self.iteration, "agent_steps": self.agent_steps, "seed": self.seed,
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
        self.learner.load(files[WEIGHTS], files["optimiser"], facts["learning_rate"])
        world = {name: value.numpy() for name, value in files["world"].items()}
        states = _part(world, len(self.crew.sizes))
        if any(NEXT not in state for state in states):
            raise ResumeError(f"the checkpoint is not of {len(states)} shards", where=str(folder),
                              remedy="resume with the number of shards with which it was made")  # fmt: skip
        self.crew.load(states)
        self.iteration, self.agent_steps = int(facts["iteration"]), int(facts["agent_steps"])


def summarise(episodes: Sequence[Episode]) -> dict[str, float]:
    """Mean of each metric that is a number, over the episodes that have it."""
    names = sorted({name for one in episodes for name, value in one.items() if not isinstance(value, str)})
    return {name: float(np.mean([one[name] for one in episodes if name in one])) for name in names}


def _join(parts: Sequence[Tensor]) -> Tensor:
    """Of all shards, along environments."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)


def _add(parts: Sequence[Tensor]) -> Tensor:
    return sum(parts[1:], parts[0])


def _merge(states: Sequence[State]) -> State:
    """The states of all shards as one: their names begin with the shard's index, if there are several."""
    if len(states) == 1:
        return states[0]
    return {f"shard{index}.{name}": value for index, one in enumerate(states) for name, value in one.items()}


def _part(state: State, count: int) -> list[State]:
    if count == 1:
        return [state]
    prefixes = [f"shard{index}." for index in range(count)]
    return [{k[len(p) :]: value for k, value in state.items() if k.startswith(p)} for p in prefixes]
