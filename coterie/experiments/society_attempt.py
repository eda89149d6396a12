"""One attempt at working a society's tasks: engines start, the supervisor works, and everything ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from coterie import registry
from coterie.config.load import Loaded
from coterie.config.references import redact_all
from coterie.config.schema import ExperimentConfig
from coterie.errors import CoterieError, ResumeError
from coterie.experiments import provenance
from coterie.experiments.continuation import CIRCUMSTANCES, Ending, is_marked_finished, tell_changes, why_ended
from coterie.experiments.folder import GOING, RunFolder, write_json
from coterie.experiments.monitoring.display import Display
from coterie.experiments.monitoring.tally import Standing
from coterie.journal import Fact, Journal, Note
from coterie.orchestration.budget import RunBudget
from coterie.orchestration.executor import Executor, Staff
from coterie.orchestration.jobs import Job, TaskLimits
from coterie.orchestration.judging import Judge
from coterie.orchestration.pool import Learning, plan
from coterie.orchestration.probes import Interviewer, Speaker
from coterie.orchestration.redaction import redacted
from coterie.orchestration.supervisor import Observer, Supervisor
from coterie.types import Grader, Weights

# Seconds between two looks at whether STATUS.json is still true.
_EVERY = 1.0


def mark_finished(folder: RunFolder, journal: Journal) -> None:
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


class Attempt:
    """The asynchronous part of a run's attempt.

    Args:
        loaded: The experiment of a society.
        folder: Its run folder.
        journal: Open for writing.
        grader: Of the benchmark.
        display: Where a person looks.
        observer: Told of every commit.
        learning: What engines must know of a training.
    """

    def __init__(
        self,
        loaded: Loaded,
        folder: RunFolder,
        journal: Journal,
        grader: Grader,
        display: Display,
        observer: Observer,
        learning: Learning | None = None,
    ) -> None:
        assert isinstance(loaded.config, ExperimentConfig)
        self.config, self.folder, self.journal = loaded.config, folder, journal
        self.display, self.observer = display, observer
        self.number = 1 + sum(1 for _ in journal.notes("attempt"))
        self.base = loaded.base
        exact = self.config.determinism == "exact"
        engines, self.policies = plan(self.config.policies, self.config.seed, exact, loaded.base, learning)
        limits = TaskLimits(self.config.budget.task_tokens, self.config.budget.task_calls)
        imports = tuple(str(loaded.base / name) if name.endswith(".py") else name for name in self.config.imports)
        self.grader, self.judge = grader, self._make_judge(grader)
        self.staff = Staff(engines, self.policies, limits, imports, self.judge.inquires, self._tell_failure)
        self.stopped = ""
        """Why nothing further is begun; empty while the attempt goes on, and when all is done."""
        self._supervisor: Supervisor | None = None
        self._is_at_work = False

    def stop(self, reason: str) -> None:
        """Begin nothing further; what is in flight is finished and committed."""
        self.stopped = self.stopped or reason
        if self._supervisor is not None:
            self._supervisor.stop(reason)

    async def run(self, standing: Standing, jobs: Sequence[Job]) -> Ending:
        """Work the jobs in their order, from the start of the engines to the end of the last."""
        with self._stops():
            return await self._run(standing, jobs)

    async def _run(self, standing: Standing, jobs: Sequence[Job]) -> Ending:
        start = time.monotonic()
        executor: Executor = registry.impl("executor", self.config.executor.kind)(self.config.executor, self.staff)
        self.note("attempt", self._circumstances())
        self.write_status("starting")
        try:
            self.check_room()
            for spec in self.staff.engines.values():
                self.display.say(f"starting {spec.config.kind} with {spec.model} ({executor.config.kind})")
            await executor.start()
            described = redact_all(executor.describe())
            self.note("executor", described)
            self._keep_engines(described["engines"])
            await self._publish_given(executor)
            self.display.begin(standing)
            self._is_at_work = True
            async with self._running():
                with self._clock(start):
                    await self.work(executor, jobs)
            status, reason = ("stopped", self.stopped) if self.stopped else ("finished", "")
        except BaseException as error:
            status, reason = why_ended(error)
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

    def check_room(self) -> None:
        """Refuse, before anything is started, what this machine has no room for; engines see to their own."""

    async def work(self, executor: Executor, jobs: Sequence[Job]) -> None:
        """Work jobs with engines that run; returns when all are done, or when `stopped` says why not."""
        await self._supervise(executor, jobs, self.judge, self.observer)

    async def work_replays(self, executor: Executor, jobs: Sequence[Job], observer: Observer) -> None:
        """Work replays of episodes: they earn no rewards, and nobody is asked about them."""
        await self._supervise(executor, jobs, Judge(self.grader, {}, self.journal), observer)

    async def _supervise(self, executor: Executor, jobs: Sequence[Job], judge: Judge, observer: Observer) -> None:
        self._supervisor = supervisor = Supervisor(
            self.journal, executor, self.policies, judge, self._budget,
            exact=self.config.determinism == "exact", observer=observer,
        )  # fmt: skip
        await supervisor.run(jobs)
        self.stopped = self.stopped or supervisor.stopped

    async def _publish_given(self, executor: Executor) -> None:
        """Load the adapters that the experiment file names."""
        given = [
            (self.policies[name].engine, Weights(str(self.base / policy.adapter), name))
            for name, policy in self.config.policies.items()
            if policy.adapter
        ]
        if given:
            await executor.publish(self.policies, given)

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

    @cached_property
    def _budget(self) -> RunBudget:
        """Of the run, less what was spent before; supervisors of one attempt spend from it one after the other."""
        budget = RunBudget(self.config.budget.tokens, self.config.budget.calls)
        for fact in self.journal.facts("turn"):
            budget.spend(fact.payload["num_prompt_tokens"] + fact.payload["num_tokens"])
        return budget

    def _make_judge(self, grader: Grader) -> Judge:
        rewards = {c.kind: registry.impl("reward", c.kind)(c) for c in self.config.rewards}
        probes = {c.kind: registry.impl("probe", c.kind)(c) for c in self.config.probes}
        interviewer = Interviewer(probes, self._speakers()) if probes else None
        return Judge(grader, rewards, self.journal, interviewer)

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
            if not self._is_at_work or self.stopped:
                task.cancel()
            else:
                self.display.say("stopping when what is in flight has ended; once more stops at once")
                self.stop("interrupted")

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
    def _clock(self, start: float) -> Iterator[None]:
        """While inside, the budget of seconds stops the run in order."""
        timer = None
        if (seconds := self.config.budget.seconds) is not None:
            left = max(0.0, seconds - (time.monotonic() - start))
            reason = f"the run's budget of {seconds:g} seconds is spent"
            timer = asyncio.get_running_loop().call_later(left, self.stop, reason)
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

    def _tell_failure(self, error: CoterieError) -> None:
        """Keep and show what an executor found by itself."""
        safe = redacted(error)
        self.journal.commit(notes=[Note("failure", "", {"code": safe.code, "what": safe.what, "where": safe.where})])
        self.observer.on_failure(safe)

    def note(self, kind: str, payload: dict[str, Any]) -> None:
        self.journal.commit(notes=[Note(kind, str(self.number), payload)])

    def write_status(self, status: str, reason: str = "") -> None:
        _write_status(self.folder, self.journal, self.number, status, reason)
