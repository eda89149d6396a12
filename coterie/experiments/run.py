"""One run: start it, take it up again, look at it.

`execute` is the whole life of an attempt; `Run` is what a person or a notebook holds afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coterie import registry
from coterie.agents.prompts import template_hashes
from coterie.agents.seats import Agent, expand
from coterie.config.load import Loaded
from coterie.config.references import check_secrets, redact
from coterie.config.schema import ExperimentConfig
from coterie.envs.benchmarks.base import Benchmark
from coterie.errors import CoterieError, Interrupted, ResumeError
from coterie.experiments import provenance
from coterie.experiments.display import Display
from coterie.experiments.folder import RunFolder, write_json
from coterie.experiments.tally import Audience, Standing
from coterie.experiments.trackers import Trackers
from coterie.journal import Fact, Journal, Note
from coterie.orchestration.budget import RunBudget
from coterie.orchestration.executor import Executor, Staff
from coterie.orchestration.judging import Judge
from coterie.orchestration.pool import plan
from coterie.orchestration.protocols.config import ProtocolConfig
from coterie.orchestration.supervisor import Observer, Supervisor
from coterie.orchestration.worker import Job, TaskLimits

# What changes when and where a run is done, but none of its facts; these may differ between attempts.
CIRCUMSTANCES = ("budget", "executor", "track")


@dataclass(frozen=True, slots=True)
class Society:
    """One thing that is measured in a run: a protocol with its agents."""

    label: str
    protocol: ProtocolConfig
    agents: tuple[Agent, ...]
    is_baseline: bool


def societies(config: ExperimentConfig) -> list[Society]:
    """The societies of a run: those the protocol stands for, then the baselines."""
    seats = expand(config.seats)
    solo = (Agent("solo", config.seats[0].policy),)
    found = {p.label: Society(p.label, p, seats, False) for p in _protocols(config.protocol)}
    for protocol in (p for b in config.baselines for p in _protocols(b)):
        # The protocol under test may be a default baseline too; then it is the seats' society that is measured.
        found.setdefault(protocol.label, Society(protocol.label, protocol, solo, True))
    return list(found.values())


def _protocols(config: Any) -> Sequence[ProtocolConfig]:
    expanded: Sequence[ProtocolConfig] = config.expand()
    return expanded


def facts_of(loaded: Loaded, fingerprint: str, tasks: int) -> dict[str, Any]:
    """The payload of the fact `run`: everything that the other facts follow from, and what the run is to do.

    It names the societies with their agents, so that a report needs no plugin to read a journal.
    """
    config = json.loads(loaded.config.model_dump_json(exclude=set(CIRCUMSTANCES)))
    # Limits of a task, unlike those of the run, decide how its episodes end.
    limits = loaded.config.budget.model_dump(include={"task_tokens", "task_calls"}, exclude_none=True)
    config |= {"budget": limits} if limits else {}
    found = [
        {"label": s.label, "is_baseline": s.is_baseline, "agents": [dataclasses.asdict(a) for a in s.agents]}
        for s in societies(loaded.config)
    ]
    return {
        "config": config, "templates": template_hashes(), "plugins": dict(loaded.plugins), "benchmark": fingerprint,
        "tasks": tasks, "societies": found,
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended: `finished`, or `stopped` with the reason."""

    status: str
    reason: str
    digest: str
    seconds: float


def execute(loaded: Loaded, folder: RunFolder, display: Display) -> Ending:
    """One attempt at a run, from engine start to the last commit.

    Raises:
        CoterieError: the attempt failed; what was committed is kept, `coterie resume` goes on.
    """
    config = loaded.config
    check_secrets(config.model_dump(mode="json"))
    benchmark: Benchmark = registry.impl("benchmark", config.benchmark.kind)(config.benchmark, config.seed, loaded.base)
    facts = facts_of(loaded, benchmark.fingerprint(), len(benchmark.tasks()))
    if folder.status.exists() and not folder.journal.exists():
        raise ResumeError(
            "the run's journal is gone", where=str(folder.journal), remedy="put it back, or start a new run"
        )
    journal = Journal.open(folder.journal) if folder.journal.exists() else Journal.create(folder.journal)
    with journal:
        check_unchanged(journal, facts)
        journal.commit([Fact("run", "run", facts)])
        jobs = owed(config, benchmark, journal)
        if not jobs:
            display.say("nothing to do: the run is finished")
            _mark_finished(folder, journal)
            return Ending("finished", "", journal.digest(), 0.0)
        save_resolved(folder, loaded)
        budget = config.budget
        standing = Standing.read(journal, max_tokens=budget.tokens, max_calls=budget.calls)
        with Trackers(config.track, folder.path, facts["config"], display.say) as trackers:
            attempt = _Attempt(loaded, folder, journal, benchmark, display, Audience(display, trackers))
            trackers.begin(standing)
            try:
                ending = asyncio.run(attempt.run(standing, jobs))
            except asyncio.CancelledError:
                raise Interrupted(
                    "the run was stopped at once", where=str(folder.path), remedy="go on with `coterie resume`"
                ) from None
            trackers.status = ending.status
        return ending


def _mark_finished(folder: RunFolder, journal: Journal) -> None:
    """Write the status of a run that was killed between its last commit and its end."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads(folder.status.read_text("utf-8"))["status"] == "finished":
            return
    _write_status(folder, journal, sum(1 for _ in journal.notes("attempt")), "finished")


def _write_status(folder: RunFolder, journal: Journal, attempt: int, status: str, reason: str = "") -> None:
    write_json(folder.status, {
        "status": status, "reason": reason, "attempt": attempt, "turns": journal.count("turn"),
        "episodes": journal.count("episode"), "digest": journal.digest(),
    })  # fmt: skip


def save_resolved(folder: RunFolder, loaded: Loaded) -> None:
    """Write every field of the config, and the folder that its relative paths start from."""
    config = json.loads(loaded.config.model_dump_json())
    write_json(folder.resolved, {"base": str(loaded.base), "config": config})


def owed(config: ExperimentConfig, benchmark: Benchmark, journal: Journal) -> list[Job]:
    """The episodes that are not in the journal yet, task by task."""
    found = societies(config)
    jobs = [Job(s.label, task, s.agents, s.protocol, config.seed) for task in benchmark.tasks() for s in found]
    return [job for job in jobs if journal.get(job.key) is None]


def check_unchanged(journal: Journal, facts: dict[str, Any]) -> None:
    """Refuse to go on with a run whose config, templates, plugins or data differ from what it began with.

    Raises:
        ResumeError: with the differences, field by field.
    """
    before = journal.get("run")
    if before is None:
        return
    differences = list(_differences("", before, facts))
    if differences:
        raise ResumeError(
            "the run was started with something else:\n    " + "\n    ".join(differences),
            where=str(journal.path.parent),
            remedy="undo the change, or start a new run",
        )


def _differences(path: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _differences(f"{path}.{key}" if path else key, before.get(key), now.get(key))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for i, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from _differences(f"{path}.{i}", old, new)
    elif before != now:
        yield f"{path}: was {json.dumps(before)}, is {json.dumps(now)}"


class _Attempt:
    """The asynchronous part of `execute`."""

    def __init__(
        self,
        loaded: Loaded,
        folder: RunFolder,
        journal: Journal,
        benchmark: Benchmark,
        display: Display,
        observer: Observer,
    ) -> None:
        self.config, self.folder, self.journal, self.benchmark = loaded.config, folder, journal, benchmark
        self.display, self.observer = display, observer
        self.number = 1 + sum(1 for _ in journal.notes("attempt"))
        engines, self.policies = plan(self.config.policies, self.config.seed, self.config.determinism == "exact")
        limits = TaskLimits(self.config.budget.task_tokens, self.config.budget.task_calls)
        imports = tuple(str(loaded.base / name) if name.endswith(".py") else name for name in self.config.imports)
        self.staff = Staff(engines, self.policies, limits, imports)

    async def run(self, standing: Standing, jobs: Sequence[Job]) -> Ending:
        start = time.monotonic()
        executor: Executor = registry.impl("executor", self.config.executor.kind)(self.config.executor, self.staff)
        self.note("attempt", self._circumstances())
        status, reason = "failed", "killed"
        self.write_status("starting")
        try:
            for spec in self.staff.engines.values():
                self.display.say(f"starting {spec.config.kind} with {spec.model} ({executor.config.kind})")
            await executor.start()
            self.note("executor", described := executor.describe())
            self._keep_engines(described["engines"])
            supervisor = self._supervisor(executor)
            self.write_status("running")
            self.display.begin(standing)
            with self._stops(supervisor, start):
                await supervisor.run(jobs)
            status, reason = ("stopped", supervisor.stopped) if supervisor.stopped else ("finished", "")
        except CoterieError as error:
            reason = redact(str(error))
            raise
        except Exception as bug:
            reason = redact(f"{type(bug).__name__}: {bug}")
            raise
        finally:
            seconds = time.monotonic() - start
            end = {"number": self.number, "status": status, "reason": reason, "seconds": seconds}
            try:
                self.note("attempt-end", end)
                self.write_status(status, reason)
            finally:
                await executor.close()
        return Ending(status, reason, self.journal.digest(), seconds)

    def _keep_engines(self, engines: Mapping[str, Mapping[str, Any]]) -> None:
        """Journal what generates the text; refuse to go on with another engine, weights or precision."""
        for name, described in engines.items():
            now = {field: described[field] for field in ("engine", "weights", "dtype") if field in described}
            before = self.journal.get(f"engine/{name}")
            if before is not None and before != now:
                raise ResumeError(
                    "the run was started with another model:\n    " + "\n    ".join(_differences(name, before, now)),
                    where=str(self.folder.path),
                    remedy="resume it where it was started, or start a new run",
                )
            self.journal.commit([Fact(f"engine/{name}", "engine", now)])

    def _supervisor(self, executor: Executor) -> Supervisor:
        budget = RunBudget(self.config.budget.tokens, self.config.budget.calls)
        for fact in self.journal.facts("turn"):
            budget.spend(fact.payload["num_prompt_tokens"] + fact.payload["num_tokens"])
        return Supervisor(
            self.journal, executor, self.policies, self._judge(), budget,
            exact=self.config.determinism == "exact", observer=self.observer,
        )  # fmt: skip

    def _judge(self) -> Judge:
        rewards = {c.kind: registry.impl("reward", c.kind)(c) for c in self.config.rewards}
        return Judge(self.benchmark.grader(), rewards, self.journal)

    @contextlib.contextmanager
    def _stops(self, supervisor: Supervisor, start: float) -> Iterator[None]:
        """While inside: Ctrl-C, SIGTERM and the budget of seconds stop the run in order; a second Ctrl-C at once."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def interrupt() -> None:
            if supervisor.stopped and task is not None:
                task.cancel()
            supervisor.stop("interrupted")

        signals: Callable[..., Any] = loop.add_signal_handler
        with contextlib.suppress(RuntimeError, ValueError):
            # Not in a thread other than the main one, as in a notebook.
            signals(signal.SIGINT, interrupt)
            signals(signal.SIGTERM, interrupt)
        timer = None
        if (seconds := self.config.budget.seconds) is not None:
            left = max(0.0, seconds - (time.monotonic() - start))
            timer = loop.call_later(left, supervisor.stop, f"the run's budget of {seconds:g} seconds is spent")
        try:
            yield
        finally:
            if timer:
                timer.cancel()
            with contextlib.suppress(RuntimeError, ValueError):
                loop.remove_signal_handler(signal.SIGINT)
                loop.remove_signal_handler(signal.SIGTERM)

    def _circumstances(self) -> dict[str, Any]:
        config = json.loads(self.config.model_dump_json(include=set(CIRCUMSTANCES)))
        return {
            "number": self.number,
            "versions": provenance.versions(),
            "hardware": provenance.hardware(),
            **config,
        }

    def note(self, kind: str, payload: dict[str, Any]) -> None:
        self.journal.commit(notes=[Note(kind, str(self.number), payload)])

    def write_status(self, status: str, reason: str = "") -> None:
        _write_status(self.folder, self.journal, self.number, status, reason)
