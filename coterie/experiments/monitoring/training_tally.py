"""The running numbers of a training, as displays and trackers show them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from coterie.experiments.records.training import Iteration, TrainingRecord, mean_metrics

_RECENT = 10
"""Iterations that rates and means are taken over."""


@dataclass(frozen=True, slots=True)
class Step:
    """One iteration as it was done: its facts, and seconds, in all and of `simulator`, `policy` and `learner`."""

    facts: Iteration
    seconds: float
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainingView:
    """A training at one moment.

    Attributes:
        iteration: How many were done.
        agent_steps: Likewise.
        planned: Agent-steps to be done.
        rate: Agent-steps per second over the last iterations of this attempt; 0 before the first.
        elapsed: Seconds of this attempt since it was begun, without its start.
        left: Seconds to the end, or to the limit; None: nobody knows yet.
        metrics: Means over the episodes of the last iterations.
        reward: Per agent-step, in the last iterations; None before the first.
        parts: Shares of time of `simulator`, `policy` and `learner`.
        limit: Seconds that this attempt may take.
    """

    iteration: int
    agent_steps: int
    planned: int
    rate: float
    elapsed: float
    left: float | None
    metrics: Mapping[str, float]
    reward: float | None
    parts: Mapping[str, float]
    limit: float | None

    @property
    def share(self) -> float:
        """Of the agent-steps that are done."""
        return min(self.agent_steps / self.planned, 1.0) if self.planned else 0.0


class TrainingTally:
    """Counts iterations. Told by one thread, viewed from any."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._steps: deque[Step] = deque(maxlen=_RECENT)
        self._rows: deque[Iteration] = deque(maxlen=_RECENT)
        self._iteration = self._agent_steps = self._planned = 0
        self._limit: float | None = None
        self._started = clock()

    def begin(self, record: TrainingRecord, limit: float | None = None) -> None:
        """Start counting from there; from now on the attempt may take so many seconds."""
        with self._lock:
            self._started, self._limit = self._clock(), limit
            self._iteration, self._agent_steps = len(record.iterations), record.agent_steps
            self._planned = record.planned
            self._rows.extend(record.iterations[-_RECENT:])

    def on_iteration(self, step: Step) -> None:
        """Count an iteration."""
        with self._lock:
            self._steps.append(step)
            self._rows.append(step.facts)
            self._iteration, self._agent_steps = step.facts["iteration"], step.facts["agent_steps"]

    def view(self) -> TrainingView:
        """What there is to show now."""
        with self._lock:
            elapsed, rate = self._clock() - self._started, self._rate()
            left = (self._planned - self._agent_steps) / rate if rate else None
            if left is not None and self._limit is not None:
                left = min(left, self._limit - elapsed)
            return TrainingView(
                self._iteration, self._agent_steps, self._planned, rate, elapsed,
                None if left is None else max(left, 0.0), mean_metrics(self._rows), self._reward(), self._shares(),
                self._limit,
            )  # fmt: skip

    def _rate(self) -> float:
        seconds = sum(step.seconds for step in self._steps)
        # Every iteration makes as many steps as the one before it.
        return len(self._steps) * self._agent_steps / self._iteration / seconds if seconds else 0.0

    def _reward(self) -> float | None:
        known = [row["reward"] for row in self._rows if row["reward"] is not None]
        return sum(known) / len(known) if known else None

    def _shares(self) -> dict[str, float]:
        total = sum(step.seconds for step in self._steps)
        names = {name for step in self._steps for name in step.parts}
        return {n: sum(s.parts.get(n, 0.0) for s in self._steps) / total for n in sorted(names)} if total else {}


def metrics_of(step: Step) -> dict[str, float]:
    """What is tracked of an iteration: its episodes, what was learnt, and the speed."""
    facts = step.facts
    rate = facts["agent_steps"] / facts["iteration"] / step.seconds if step.seconds else 0.0
    episodes = {f"episode/{name}": value for name, value in facts["metrics"].items() if value is not None}
    learning = {f"learning/{name}": value for name, value in facts["learning"].items() if value is not None}
    return {
        **episodes, **learning, "episode/count": float(facts["episodes"]), "reward": facts["reward"],
        "speed/agent_steps_per_second": rate,
    }  # fmt: skip
