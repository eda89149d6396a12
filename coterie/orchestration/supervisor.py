"""The supervisor: moves the workers, commits every turn before anybody uses it, and keeps the budget.

What is dispatched when is the dispatcher's matter (`statistical` and `exact` differ only there). Here stands the loop:
let workers advance, plan calls, run them, commit, hand the committed turns back.
"""

from __future__ import annotations

import asyncio
import platform
from collections import deque
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from coterie.errors import CoterieError, EngineError, ProtocolError, WorkerLost
from coterie.journal import Fact, Journal, Note
from coterie.orchestration import records
from coterie.orchestration.budget import RunBudget
from coterie.orchestration.dispatch import Call, Continuous, Dispatcher, Loads, Supersteps, Wanted
from coterie.orchestration.executor import Executor
from coterie.orchestration.jobs import Examination, Job, Performed, Report, Work
from coterie.orchestration.judging import Judge
from coterie.orchestration.pool import PolicySpec
from coterie.orchestration.redaction import redacted
from coterie.types import Outcome, Turn, Verdict

T = TypeVar("T")

# Seconds beyond the engine's deadline in which a worker has to report what came of a call.
_GRACE = 5.0


class Observer(Protocol):
    """Told what happened, after it was committed."""

    def on_turn(self, turn: Turn, verdict: Verdict | None) -> None: ...

    def on_episode(self, job: Job, outcome: Outcome, verdict: Verdict) -> None: ...

    def on_failure(self, error: CoterieError) -> None: ...


class Quiet:
    """An observer that does nothing."""

    def on_turn(self, turn: Turn, verdict: Verdict | None) -> None: ...

    def on_episode(self, job: Job, outcome: Outcome, verdict: Verdict) -> None: ...

    def on_failure(self, error: CoterieError) -> None: ...


@dataclass(slots=True)
class _Desk:
    """The supervisor's side of one worker: what waits to be handed in, and what the worker has in hand."""

    jobs: list[Work] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    open_jobs: dict[str, Work] = field(default_factory=dict)
    is_advancing: bool = False
    is_reviving: bool = False
    lives: int = 0
    losses: int = 0
    """Since a turn of this worker was last committed."""


class Supervisor:
    """Runs jobs to their end, or until it is stopped. One use.

    Args:
        journal: Open for writing.
        executor: Started.
        policies: By name; they tell the engine of each request.
        judge: Gives verdicts and rewards. Where it inquires, `executor` was built for a staff that `examines`.
        budget: With what earlier attempts spent.
        exact: Run in supersteps, see `dispatch`.
        observer: Told of every commit.
    """

    def __init__(
        self,
        journal: Journal,
        executor: Executor,
        policies: dict[str, PolicySpec],
        judge: Judge,
        budget: RunBudget,
        *,
        exact: bool,
        observer: Observer,
    ) -> None:
        self._journal, self._executor, self._policies = journal, executor, policies
        self._judge, self._budget, self._observer = judge, budget, observer
        self._dispatcher: Dispatcher = Supersteps(journal) if exact else Continuous()
        self._desks = [_Desk() for _ in executor.workers]
        self._queue: deque[tuple[int, Job]] = deque()
        self._wanted: dict[str, Wanted] = {}
        self._ready: set[str] = set()
        self._loads = Loads(executor.engines)
        self._repairs: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._woken = asyncio.Event()
        self.stopped = ""
        """Why no further call is made; empty while the run goes on, and after a run that was worked to its end."""

    def stop(self, reason: str) -> None:
        """Make no further call; what is in flight is finished and committed."""
        self.stopped = self.stopped or reason
        self._woken.set()

    async def run(self, jobs: Sequence[Job]) -> None:
        """Work the jobs in their order; returns when all are done, or when `stopped` says why not.

        Raises:
            CoterieError: an engine, worker or protocol failed for good. Everything committed is kept.
        """
        # Finished tasks count too: a batch is one worker's, so a resumed run must share the tasks out as before.
        finished = {fact.payload["task"] for kind in ("episode", "replay") for fact in self._journal.facts(kind)}
        order = {task: i for i, task in enumerate(sorted(finished | {job.task.id for job in jobs}))}
        num_workers = len(self._desks) - self._judge.inquires
        self._queue.extend((order[job.task.id] % num_workers, job) for job in jobs)
        try:
            while True:
                self._open_jobs()
                self._start_advances()
                self._start_calls()
                if not self._running:
                    break
                await self._woken.wait()
                self._woken.clear()
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
        if self._failure is not None:
            raise self._failure
        stuck = [key for desk in self._desks for key in desk.open_jobs]
        if stuck and not self.stopped:
            raise ProtocolError(
                f"{len(stuck)} episodes wait for something that is no turn", where=stuck[0],
                remedy="a protocol may await nothing but `ask`, and asyncio.gather over it",
            )  # fmt: skip

    def _spawn(self, step: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(step)
        self._running.add(task)
        task.add_done_callback(self._on_step_done)

    def _on_step_done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._woken.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
            self.stop(str(error))

    # Moving the workers.

    def _open_jobs(self) -> None:
        room = self._executor.config.episodes - sum(len(desk.open_jobs) for desk in self._desks)
        while self._queue and room > 0 and not self.stopped:
            worker, job = self._queue.popleft()
            self._desks[worker].jobs.append(job)
            self._desks[worker].open_jobs[job.key] = job
            room -= 1

    def _start_advances(self) -> None:
        for worker, desk in enumerate(self._desks):
            if not desk.is_advancing and not desk.is_reviving and (desk.jobs or desk.turns):
                desk.is_advancing = True
                jobs, turns, desk.jobs, desk.turns = desk.jobs, desk.turns, [], []
                self._spawn(self._advance(worker, jobs, turns))

    async def _advance(self, worker: int, jobs: list[Work], turns: list[Turn]) -> None:
        desk = self._desks[worker]
        life, repairs = desk.lives, dict(self._repairs)
        try:
            report = await self._timed(worker, self._executor.workers[worker].advance(jobs, turns))
        except WorkerLost as lost:
            await self._replace(worker, life, lost)
        except EngineError as error:
            encoder = error.where, 0
            await self._repair(encoder, repairs.get(encoder), error, f"worker-{worker}")
            await self._replace(worker, life, error)
        else:
            if desk.lives == life:
                self._take(worker, report)
        desk.is_advancing = False

    async def _timed(self, worker: int, step: Awaitable[T]) -> T:
        """What a worker reports. It times the engines it calls, so one that keeps silent for longer hangs itself."""
        patience = self._executor.config.deadline + _GRACE
        try:
            async with asyncio.timeout(patience):
                return await step
        except TimeoutError:
            what = f"an agent worker did not report within {patience:g} s"
            raise WorkerLost(what, where=f"worker {worker}") from None

    def _take(self, worker: int, report: Report) -> None:
        desk = self._desks[worker]
        over = self._finish(desk, report)
        finished, facts = [], list[Fact]()
        for job, outcome, answers in over:
            verdict, new = self._judge.judge_episode(job, outcome, answers)
            finished.append((job, outcome, verdict))
            facts += new
        if facts:
            self._journal.commit(facts)
        for episode in finished:
            self._observer.on_episode(*episode)
        for request in report.requests:
            said = {key: payload for key in request.keys if (payload := self._journal.get(key)) is not None}
            if len(said) == len(request.keys):
                desk.turns += [records.read_turn(key, payload) for key, payload in said.items()]
            elif request.key in self._wanted:
                self._wanted[request.key].workers.append(worker)
            else:
                self._wanted[request.key] = Wanted(request, self._policies[request.policy].engine, [worker])
                self._ready.add(request.key)

    def _finish(self, desk: _Desk, report: Report) -> list[tuple[Job, Outcome, Sequence[Turn]]]:
        """The episodes about which nothing is left to ask, with what was answered; the others go to be examined."""
        over: list[tuple[Job, Outcome, Sequence[Turn]]] = []
        for key, outcome in report.outcomes.items():
            job = desk.open_jobs.pop(key)
            assert isinstance(job, Job), "only jobs have an outcome"
            if inquiries := self._judge.inquire(job, outcome):
                work = Examination(job, outcome, inquiries)
                self._desks[-1].jobs.append(work)
                self._desks[-1].open_jobs[key] = work
            else:
                over.append((job, outcome, ()))
        for key, answers in report.answers.items():
            examined = desk.open_jobs.pop(key)
            assert isinstance(examined, Examination), "only examinations have answers"
            over.append((examined.job, examined.outcome, answers))
        return over

    async def _replace(self, worker: int, life: int, cause: WorkerLost | EngineError) -> None:
        """Put a fresh worker in place of a lost one, once for each loss, and give it the unfinished jobs."""
        desk = self._desks[worker]
        if desk.lives != life:
            return
        desk.lives += 1
        desk.losses += 1
        if isinstance(cause, WorkerLost):
            self._report_failure(cause, f"worker-{worker}")
        if desk.losses > self._executor.config.attempts:
            self._give_up(desk, cause)
            return
        for key, wanted in list(self._wanted.items()):
            wanted.workers = [w for w in wanted.workers if w != worker]
            if not wanted.workers and key in self._ready:
                del self._wanted[key]
                self._ready.discard(key)
        # Meanwhile jobs may be opened for this worker; given to the dead one they would have it replaced twice.
        desk.is_reviving = True
        await self._executor.revive(worker)
        desk.is_reviving = False
        desk.turns, desk.jobs = [], list(desk.open_jobs.values())

    def _give_up(self, desk: _Desk, cause: WorkerLost | EngineError) -> None:
        desk.jobs, desk.turns = [], []
        error = type(cause)(
            f"gave up after losing a worker {desk.losses} times in a row: {cause.what}", where=cause.where,
            remedy="see its log on its node; `coterie resume` goes on from here",
        )  # fmt: skip
        self._failure = self._failure or error
        self.stop(str(error))

    # Calling the engines.

    def _start_calls(self) -> None:
        if self.stopped or not self._ready:
            return
        is_idle = not self._running and not any(desk.jobs or desk.turns for desk in self._desks)
        ready = sorted((self._wanted[key] for key in self._ready), key=lambda w: (w.request.place, w.request.key))
        calls, reason = self._dispatcher.plan(ready, self._loads, self._budget, is_idle)
        if reason:
            self.stop(reason)
        for call in calls:
            self._ready.difference_update(wanted.request.key for wanted in call.wanted)
            self._spawn(self._run_call(call))

    async def _run_call(self, call: Call) -> None:
        failure: EngineError | WorkerLost | None = None
        try:
            results = await self._perform(call)
        except (EngineError, WorkerLost) as error:
            failure = error
        self._loads.add(call, -1)
        if failure is None:
            # Beside the event loop: a grader may run code, or wait for an answer that never ends.
            verdicts = await asyncio.to_thread(self._judge.judge_turns, [done.turn for done in results])
        # Only now: what is neither reserved nor spent could be reserved by others while it is graded.
        for wanted in call.wanted:
            self._budget.release(wanted.request.cost, len(wanted.request.keys))
        if failure is None:
            self._commit(call, results, verdicts)
            self._desks[call.worker].losses = 0
        else:
            self._put_back(call, failure)

    async def _perform(self, call: Call) -> list[Performed]:
        if any(call.worker not in wanted.workers for wanted in call.wanted):
            raise WorkerLost("the worker was replaced after the call was planned; its successor has not asked yet")
        life = self._desks[call.worker].lives
        replica = call.engine, call.replica
        repair = self._repairs.get(replica)
        keys = [key for wanted in call.wanted for key in wanted.request.keys]
        try:
            return await self._timed(call.worker, self._executor.workers[call.worker].perform(keys, call.replica))
        except WorkerLost as lost:
            await self._replace(call.worker, life, lost)
            raise
        except EngineError as error:
            await self._repair(replica, repair, error, keys[0])
            raise

    async def _repair(
        self, replica: tuple[str, int], last: asyncio.Task[None] | None, error: EngineError, key: str
    ) -> None:
        """Restart a replica, once for all the calls that its failure took along."""
        self._report_failure(error, key)
        if self._repairs.get(replica) is last:
            self._repairs[replica] = asyncio.ensure_future(self._executor.restart_engine(*replica))
        await self._repairs[replica]

    def _put_back(self, call: Call, failure: EngineError | WorkerLost) -> None:
        if isinstance(failure, EngineError):
            self._count_attempt(call, failure)
        for wanted in call.wanted:
            if wanted.workers:
                self._ready.add(wanted.request.key)
            else:
                self._wanted.pop(wanted.request.key, None)

    def _count_attempt(self, call: Call, error: EngineError) -> None:
        """Count a failure for the request that it names as its place, or else, as the engine's, for the whole call."""
        own = [wanted for wanted in call.wanted if str(wanted.request.place) == error.where]
        for wanted in own or call.wanted:
            wanted.attempts += 1
        tried = max(wanted.attempts for wanted in own or call.wanted)
        if tried >= self._executor.config.attempts:
            whole = f"{call.engine}, replica {call.replica}, with {len(call.wanted)} requests"
            raise type(error)(
                f"gave up after {tried} attempts: {error.what}", where=own[0].request.key if own else whole,
                remedy=error.remedy or "mend the cause; `coterie resume` goes on from here",
            )  # fmt: skip

    def _commit(self, call: Call, results: Sequence[Performed], verdicts: Sequence[Verdict | None]) -> None:
        facts, notes = list[Fact](), list[Note]()
        for done, verdict in zip(results, verdicts, strict=True):
            facts.append(records.turn_fact(done.turn))
            if verdict is not None:
                facts.append(records.verdict_fact(done.turn, verdict))
            notes.append(records.sample_note(done, platform.node(), call.replica))
        self._journal.commit(facts, notes)
        waiting = {key: wanted.workers for wanted in call.wanted for key in wanted.request.keys}
        for wanted in call.wanted:
            del self._wanted[wanted.request.key]
        for done, verdict in zip(results, verdicts, strict=True):
            turn = done.turn
            self._budget.spend(turn.num_prompt_tokens + turn.num_tokens)
            for worker in waiting[turn.key]:
                self._desks[worker].turns.append(turn)
            self._observer.on_turn(turn, verdict)

    def _report_failure(self, error: CoterieError, key: str) -> None:
        safe = redacted(error)
        self._journal.commit(notes=[Note("failure", key, {"code": safe.code, "what": safe.what, "where": safe.where})])
        self._observer.on_failure(safe)
