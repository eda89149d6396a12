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
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coterie import registry
from coterie.agents.embedders import fingerprint
from coterie.agents.prompts import template, template_names
from coterie.agents.seats import Agent, expand
from coterie.config.load import Loaded
from coterie.config.references import check_secrets, redact, redact_all
from coterie.config.schema import ExperimentConfig
from coterie.envs.benchmarks.base import Benchmark
from coterie.errors import ConfigError, CoterieError, Interrupted, ResumeError
from coterie.experiments import provenance
from coterie.experiments.continuation import (
    CIRCUMSTANCES,
    Ending,
    check_unchanged,
    is_marked_finished,
    lasting,
    open_journal,
    resumable,
    save_resolved,
    tell_changes,
)
from coterie.experiments.display import Display
from coterie.experiments.folder import GOING, RunFolder, write_json
from coterie.experiments.tally import Audience, Standing
from coterie.experiments.trackers import Trackers
from coterie.journal import Fact, Journal, Note
from coterie.orchestration.budget import RunBudget
from coterie.orchestration.executor import Executor, Staff
from coterie.orchestration.jobs import Job, TaskLimits
from coterie.orchestration.judging import Judge
from coterie.orchestration.pool import plan
from coterie.orchestration.probes import Interviewer, Speaker
from coterie.orchestration.protocols.config import ProtocolConfig
from coterie.orchestration.supervisor import Observer, Supervisor
from coterie.sandbox import is_unsafe_code_allowed

# Seconds between two looks at whether STATUS.json is still true.
_EVERY = 1.0


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


def facts_of(loaded: Loaded, benchmark: str, tasks: int) -> dict[str, Any]:
    """The payload of the fact `run`: everything that the other facts follow from, and what the run is to do.

    It names the societies with their agents, so that a report needs no plugin to read a journal.
    """
    assert isinstance(loaded.config, ExperimentConfig)
    config = lasting(loaded.config)
    # Limits of a task, unlike those of the run, decide how its episodes end.
    limits = loaded.config.budget.model_dump(include={"task_tokens", "task_calls"}, exclude_none=True)
    config |= {"budget": limits} if limits else {}
    found = [
        {"label": s.label, "is_baseline": s.is_baseline, "agents": [dataclasses.asdict(a) for a in s.agents]}
        for s in societies(loaded.config)
    ]
    embedders = {name: fingerprint(name) for s in societies(loaded.config) for name in s.protocol.embedders}
    vectors = {"embedders": embedders} if embedders else {}
    unsafe = {"unsafe_code": "allowed"} if is_unsafe_code_allowed() else {}
    return {
        "config": config, "templates": _template_hashes(loaded.config), "plugins": dict(loaded.plugins),
        "benchmark": benchmark, "tasks": tasks, "societies": found, **vectors, **unsafe,
    }  # fmt: skip


def _template_hashes(config: ExperimentConfig) -> dict[str, str]:
    """SHA-256 of each template that the run's protocols may fill in. Words of personas stand with the agents."""
    wanted = {"question"}
    for society in societies(config):
        templates = society.protocol.templates
        wanted.update(template_names() if templates is None else templates)
    for probe in config.probes:
        wanted.update(getattr(probe, "templates", ()))
    return {name: template(name).hash for name in sorted(wanted)}


def execute(loaded: Loaded, folder: RunFolder, display: Display) -> Ending:
    """One attempt at a run, from engine start to the last commit.

    Raises:
        InvalidConfig: the benchmark refused its config.
        ResumeError: the run was started with something else, or its journal is in use, damaged or gone.
        CoterieError: the attempt failed; what was committed is kept, `coterie resume` goes on.
    """
    config = loaded.config
    assert isinstance(config, ExperimentConfig)
    check_secrets(config.model_dump(mode="json"))
    benchmark = _make_benchmark(loaded)
    facts = facts_of(loaded, benchmark.fingerprint(), len(benchmark.tasks()))
    with open_journal(folder) as journal:
        with resumable():
            check_unchanged(journal, facts, config)
            if journal.get("run") is None:
                journal.commit([Fact("run", "run", facts)])
            jobs = owed(config, benchmark, journal)
            standing = Standing.read(journal, max_tokens=config.budget.tokens, max_calls=config.budget.calls)
        if not jobs:
            display.say("nothing to do: the run is finished")
            _mark_finished(folder, journal)
            return Ending("finished", "", journal.digest(), 0.0)
        with Trackers(config.track, folder.path, facts["config"], display.say) as trackers:
            save_resolved(folder, loaded)
            attempt = _Attempt(loaded, folder, journal, benchmark, display, Audience(display, trackers))
            trackers.begin(standing)
            try:
                ending = asyncio.run(attempt.run(standing, jobs))
            except (asyncio.CancelledError, KeyboardInterrupt):
                raise Interrupted(
                    "the run was stopped at once", where=str(folder.path), remedy="go on with `coterie resume`"
                ) from None
            trackers.status = ending.status
        return ending


def _make_benchmark(loaded: Loaded) -> Benchmark:
    config = loaded.config
    assert isinstance(config, ExperimentConfig)
    try:
        made: Benchmark = registry.impl("benchmark", config.benchmark.kind)(config.benchmark, config.seed, loaded.base)
    except ConfigError as error:
        raise loaded.place(error) from None
    return made


def _mark_finished(folder: RunFolder, journal: Journal) -> None:
    """Write the status of a run that was killed between its last commit and its end."""
    if not is_marked_finished(folder):
        _write_status(folder, journal, sum(1 for _ in journal.notes("attempt")), "finished")


def _write_status(folder: RunFolder, journal: Journal, attempt: int, status: str, reason: str = "") -> None:
    written = {
        "status": status, "reason": reason, "attempt": attempt, "turns": journal.count("turn"),
        "episodes": journal.count("episode"),
    }  # fmt: skip
    # The digest reads every fact: too much for each second, and of no use before the end.
    write_json(folder.status, written if status in GOING else {**written, "digest": journal.digest()})


def owed(config: ExperimentConfig, benchmark: Benchmark, journal: Journal) -> list[Job]:
    """The episodes that are not in the journal yet, task by task."""
    found = societies(config)
    jobs = [Job(s.label, task, s.agents, s.protocol, config.seed) for task in benchmark.tasks() for s in found]
    return [job for job in jobs if journal.get(job.key) is None]


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
        assert isinstance(loaded.config, ExperimentConfig)
        self.config, self.folder, self.journal, self.benchmark = loaded.config, folder, journal, benchmark
        self.display, self.observer = display, observer
        self.number = 1 + sum(1 for _ in journal.notes("attempt"))
        exact = self.config.determinism == "exact"
        engines, self.policies = plan(self.config.policies, self.config.seed, exact)
        limits = TaskLimits(self.config.budget.task_tokens, self.config.budget.task_calls)
        imports = tuple(str(loaded.base / name) if name.endswith(".py") else name for name in self.config.imports)
        self.judge = self._make_judge()
        self.staff = Staff(engines, self.policies, limits, imports, self.judge.inquires)
        self.supervisor: Supervisor | None = None

    async def run(self, standing: Standing, jobs: Sequence[Job]) -> Ending:
        with self._stops():
            return await self._run(standing, jobs)

    async def _run(self, standing: Standing, jobs: Sequence[Job]) -> Ending:
        start = time.monotonic()
        executor: Executor = registry.impl("executor", self.config.executor.kind)(self.config.executor, self.staff)
        self.note("attempt", self._circumstances())
        status, reason = "failed", "killed"
        self.write_status("starting")
        try:
            for spec in self.staff.engines.values():
                self.display.say(f"starting {spec.config.kind} with {spec.model} ({executor.config.kind})")
            await executor.start()
            described = redact_all(executor.describe())
            self.note("executor", described)
            self._keep_engines(described["engines"])
            self.supervisor = supervisor = self._make_supervisor(executor)
            self.display.begin(standing)
            async with self._running():
                with self._clock(supervisor, start):
                    await supervisor.run(jobs)
            status, reason = ("stopped", supervisor.stopped) if supervisor.stopped else ("finished", "")
        except CoterieError as error:
            reason = redact(str(error))
            raise
        except asyncio.CancelledError:
            status, reason = "stopped", "interrupted"
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

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        """While inside, STATUS.json follows the journal."""
        self.write_status("running")
        following = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            following.cancel()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            # A glance that cannot be written is no reason to end a run; the last one is written at the end.
            with contextlib.suppress(OSError):
                self.write_status("running")

    def _keep_engines(self, engines: Mapping[str, Mapping[str, Any]]) -> None:
        """Journal what generates the text; refuse to go on with another engine, weights or precision."""
        for name, described in engines.items():
            now = {field: described[field] for field in ("engine", "weights", "dtype") if field in described}
            before = self.journal.get(f"engine/{name}")
            if before is not None and before != now:
                raise ResumeError(
                    f"the run was started with another model:{tell_changes(name, before, now)}",
                    where=str(self.folder.path),
                    remedy="resume it where it was started, or start a new run",
                )
            self.journal.commit([Fact(f"engine/{name}", "engine", now)])

    def _make_supervisor(self, executor: Executor) -> Supervisor:
        budget = RunBudget(self.config.budget.tokens, self.config.budget.calls)
        for fact in self.journal.facts("turn"):
            budget.spend(fact.payload["num_prompt_tokens"] + fact.payload["num_tokens"])
        return Supervisor(
            self.journal, executor, self.policies, self.judge, budget,
            exact=self.config.determinism == "exact", observer=self.observer,
        )  # fmt: skip

    def _make_judge(self) -> Judge:
        rewards = {c.kind: registry.impl("reward", c.kind)(c) for c in self.config.rewards}
        probes = {c.kind: registry.impl("probe", c.kind)(c) for c in self.config.probes}
        interviewer = Interviewer(probes, self._speakers()) if probes else None
        return Judge(self.benchmark.grader(), rewards, self.journal, interviewer)

    def _speakers(self) -> dict[str, Speaker]:
        engines = {name: policy.engine for name, policy in self.config.policies.items()}
        return {
            name: Speaker(spec.sampling, getattr(engines[name], "capabilities", frozenset()))
            for name, spec in self.policies.items()
        }

    @contextlib.contextmanager
    def _stops(self) -> Iterator[None]:
        """While inside, Ctrl-C and SIGTERM stop the run: at work in order, a second time or before that at once."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def interrupt() -> None:
            if self.supervisor is None or self.supervisor.stopped:
                task.cancel()
            else:
                self.display.say("stopping when what is in flight has ended; once more stops at once")
                self.supervisor.stop("interrupted")

        signals: Callable[..., Any] = loop.add_signal_handler
        with contextlib.suppress(RuntimeError, ValueError):
            # Not in a thread other than the main one, as in a notebook.
            signals(signal.SIGINT, interrupt)
            signals(signal.SIGTERM, interrupt)
        try:
            yield
        finally:
            with contextlib.suppress(RuntimeError, ValueError):
                loop.remove_signal_handler(signal.SIGINT)
                loop.remove_signal_handler(signal.SIGTERM)

    @contextlib.contextmanager
    def _clock(self, supervisor: Supervisor, start: float) -> Iterator[None]:
        """While inside, the budget of seconds stops the run in order."""
        timer = None
        if (seconds := self.config.budget.seconds) is not None:
            left = max(0.0, seconds - (time.monotonic() - start))
            reason = f"the run's budget of {seconds:g} seconds is spent"
            timer = asyncio.get_running_loop().call_later(left, supervisor.stop, reason)
        try:
            yield
        finally:
            if timer:
                timer.cancel()

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
