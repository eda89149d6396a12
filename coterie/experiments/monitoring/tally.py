"""The running counts of a run, as displays and trackers show them.

A tally begins where the journal stands, so it says the same after a resume as it would have without a stop.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from coterie import registry
from coterie.errors import CoterieError
from coterie.experiments.records.updates import Update, is_training, read_updates
from coterie.journal import Journal
from coterie.orchestration import records
from coterie.orchestration.jobs import Job
from coterie.orchestration.supervisor import Observer
from coterie.types import Outcome, Turn, Verdict

# Tokens per second are over the last so many seconds: turns come in batches, and a big one takes many.
_WINDOW = 60.0


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands when an attempt begins."""

    agents: Mapping[str, Sequence[str]]
    """The names of each society's agents."""
    num_tasks: int
    """Every society works each of them."""
    done: Mapping[str, Mapping[str, bool | None]] = field(default_factory=dict)
    """Society to its finished tasks; the value says whether the answer was right, None that nobody could judge it."""
    turns: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    answers: int = 0
    """Turns that answer a task."""
    unparsed: int = 0
    max_tokens: int | None = None
    max_calls: int | None = None
    """The run's budget."""
    success: str = "right"
    """What the benchmark calls an episode that was judged well."""
    updates: Sequence[Update] = ()
    """Of a training, its iterations so far."""
    iterations: int = 0
    """Of a training, how many there are to be."""

    @classmethod
    def read(cls, journal: Journal, *, max_tokens: int | None = None, max_calls: int | None = None) -> Standing:
        """The standing of a journal that holds the fact `run`."""
        run = journal.get("run") or {}
        config = run.get("config") or {}
        iterations = config["learning"]["iterations"] if is_training(run) else 0
        agents = {s["label"]: tuple(a["name"] for a in s["agents"]) for s in run.get("societies", ())}
        done: dict[str, dict[str, bool | None]] = {}
        for fact in journal.facts("episode"):
            verdict = records.read_episode_verdict(fact.payload)
            done.setdefault(fact.payload["society"], {})[fact.payload["task"]] = _judged(verdict)
        turns = [fact.payload for fact in journal.facts("turn")]
        answers = [turn["answer"] for turn in turns if turn["place"]["purpose"] == "answer"]
        return cls(
            agents, run.get("tasks", 0), done, len(turns), sum(turn["num_prompt_tokens"] for turn in turns),
            sum(turn["num_tokens"] for turn in turns), len(answers), answers.count(None), max_tokens, max_calls,
            success_word(config.get("benchmark") or {}), read_updates(journal) if iterations else (), iterations,
        )  # fmt: skip


def success_word(benchmark: Mapping[str, Any]) -> str:
    """What a benchmark, by its config as journalled, calls an episode that was judged well: `right`, if nothing else.

    A plugin that is not loaded has no say.
    """
    kind = benchmark.get("kind")
    if kind not in registry.names("benchmark"):
        return "right"
    return str(getattr(registry.load(registry.get("benchmark", str(kind)).config), "success", "right"))


def _judged(verdict: Verdict) -> bool | None:
    return None if verdict.is_excluded else verdict.correct


@dataclass(frozen=True, slots=True)
class SocietyView:
    """One society's progress. `rounds` are the first and last round its open tasks are in, None before any turn."""

    label: str
    done: int
    total: int
    judged: int
    correct: int
    rounds: tuple[int, int] | None

    @property
    def accuracy(self) -> float | None:
        """The share of finished tasks that were answered right, of those that could be judged."""
        return self.correct / self.judged if self.judged else None


@dataclass(frozen=True, slots=True)
class View:
    """A tally at one moment. `rate` is generated tokens per second over the last seconds; times are in seconds."""

    societies: tuple[SocietyView, ...]
    turns: int
    prompt_tokens: int
    tokens: int
    rate: float
    unparsed_rate: float
    failures: int
    elapsed: float
    episodes_per_second: float
    left: float | None
    """Seconds until all episodes are done at the speed so far; None before the first one of this attempt."""
    idle: float
    """Seconds since the last turn or episode."""
    max_tokens: int | None
    max_calls: int | None
    success: str
    updates: tuple[Update, ...] = ()
    """Of a training, its iterations so far."""
    iterations: int = 0
    """Of a training, how many there are to be; 0 of any other run."""

    @property
    def done(self) -> int:
        """Finished episodes."""
        return sum(s.done for s in self.societies)

    @property
    def total(self) -> int:
        """All episodes of the run."""
        return sum(s.total for s in self.societies)


@dataclass(slots=True)
class _Society:
    agents: frozenset[str]
    correct: dict[str, bool | None]
    rounds: dict[str, int] = field(default_factory=dict)

    def see(self, turn: Turn) -> None:
        place = turn.place
        if place.seat in self.agents and place.task not in self.correct:
            self.rounds[place.task] = max(place.round, self.rounds.get(place.task, 0))

    def view(self, label: str, total: int) -> SocietyView:
        rounds = self.rounds.values()
        span = (min(rounds), max(rounds)) if rounds else None
        judged = [is_right for is_right in self.correct.values() if is_right is not None]
        return SocietyView(label, len(self.correct), total, len(judged), sum(judged), span)


class Tally:
    """Counts what an observer is told. Written by one thread, viewed from any."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._recent: deque[tuple[float, int]] = deque()
        self._fresh_episodes = self._failures = 0
        self._reset(Standing({}, 0))

    def begin(self, standing: Standing) -> None:
        """Start counting from there; failures reported before stay counted."""
        with self._lock:
            self._reset(standing)

    def _reset(self, standing: Standing) -> None:
        self._standing, self._started = standing, self._clock()
        self._last = self._started
        self._turns, self._tokens = standing.turns, standing.tokens
        self._prompt_tokens = standing.prompt_tokens
        self._answers, self._unparsed = standing.answers, standing.unparsed
        self._updates = list(standing.updates)
        self._societies = {
            label: _Society(frozenset(agents), dict(standing.done.get(label, {})))
            for label, agents in standing.agents.items()
        }

    def on_turn(self, turn: Turn, verdict: Verdict | None) -> None:
        """Count a committed turn."""
        with self._lock:
            self._last = self._clock()
            self._recent.append((self._last, turn.num_tokens))
            self._turns += 1
            self._tokens += turn.num_tokens
            self._prompt_tokens += turn.num_prompt_tokens
            if turn.place.purpose == "answer":
                self._answers += 1
                self._unparsed += turn.answer is None
            for society in self._societies.values():
                society.see(turn)

    def on_episode(self, job: Job, outcome: Outcome, verdict: Verdict) -> None:
        """Count a finished episode."""
        with self._lock:
            self._last = self._clock()
            self._fresh_episodes += 1
            agents = frozenset(agent.name for agent in job.agents)
            society = self._societies.setdefault(job.society, _Society(agents, {}))
            society.correct[job.task.id] = _judged(verdict)
            society.rounds.pop(job.task.id, None)

    def on_update(self, update: Update) -> None:
        """Keep an iteration of a training."""
        with self._lock:
            self._last = self._clock()
            self._updates.append(update)

    def on_failure(self, error: CoterieError) -> None:
        """Count a failure that the supervisor works around."""
        with self._lock:
            self._failures += 1

    def view(self) -> View:
        """What there is to show now."""
        with self._lock:
            now, standing = self._clock(), self._standing
            societies = tuple(s.view(label, standing.num_tasks) for label, s in self._societies.items())
            elapsed = now - self._started
            speed = self._fresh_episodes / elapsed if elapsed > 0 else 0.0
            remaining = sum(max(0, s.total - s.done) for s in societies)
            return View(
                societies, self._turns, self._prompt_tokens, self._tokens, self._rate(now),
                self._unparsed / self._answers if self._answers else 0.0, self._failures, elapsed, speed,
                remaining / speed if speed else None, now - self._last, standing.max_tokens, standing.max_calls,
                standing.success, tuple(self._updates), standing.iterations,
            )  # fmt: skip

    def _rate(self, now: float) -> float:
        while self._recent and self._recent[0][0] < now - _WINDOW:
            self._recent.popleft()
        span = min(_WINDOW, now - self._started)
        return sum(tokens for _, tokens in self._recent) / span if span > 0 else 0.0


class Watcher(Observer, Protocol):
    """An observer of a run that may be a training."""

    def on_update(self, update: Update) -> None:
        """An iteration of a training is done; after a kill it may come again."""
        ...


class Audience:
    """Several watchers as one, told in order."""

    def __init__(self, *observers: Watcher) -> None:
        self._observers = observers

    def on_turn(self, turn: Turn, verdict: Verdict | None) -> None:
        """Pass a committed turn on."""
        for observer in self._observers:
            observer.on_turn(turn, verdict)

    def on_episode(self, job: Job, outcome: Outcome, verdict: Verdict) -> None:
        """Pass a finished episode on."""
        for observer in self._observers:
            observer.on_episode(job, outcome, verdict)

    def on_failure(self, error: CoterieError) -> None:
        """Pass a failure on."""
        for observer in self._observers:
            observer.on_failure(error)

    def on_update(self, update: Update) -> None:
        """Pass an iteration on."""
        for observer in self._observers:
            observer.on_update(update)


class Deaf(Audience):
    """Passes all on but episodes: replays are none."""

    def on_episode(self, job: Job, outcome: Outcome, verdict: Verdict) -> None:
        """Keep it to itself."""


class Meter:
    """Counts the tokens that are generated."""

    def __init__(self) -> None:
        self.tokens = 0

    def on_turn(self, turn: Turn, verdict: Verdict | None) -> None:
        """Count a committed turn."""
        self.tokens += turn.num_tokens

    def on_episode(self, job: Job, outcome: Outcome, verdict: Verdict) -> None:
        """Of no matter."""

    def on_failure(self, error: CoterieError) -> None:
        """Of no matter."""

    def on_update(self, update: Update) -> None:
        """Of no matter."""
