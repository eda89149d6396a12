"""The agent worker: runs whole episodes and calls engines; holds nothing that cannot be rebuilt.

The driver moves it in steps. `advance` hands in jobs and committed turns, lets every coroutine run until it waits for a
model, and returns what is asked and what is done. `perform` has an engine answer some of what was asked. A worker that
dies is replaced by a new one with the same jobs: memoised turns bring it to where the old one was.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple, TypeVar

from coterie import registry
from coterie.errors import CoterieError, CreditError, EngineError, EngineTimeout, ProtocolError
from coterie.orchestration.asking import Asker
from coterie.orchestration.budget import CUT_SHORT, BudgetSpent, Ledger
from coterie.orchestration.embedding import EmbeddingDoor
from coterie.orchestration.jobs import Begun, Examination, Job, Performed, Report, Request, TaskLimits, Work
from coterie.orchestration.pool import EngineClient, PolicySpec
from coterie.orchestration.protocols.base import SocietyProtocol
from coterie.orchestration.protocols.minutes import Minutes
from coterie.orchestration.replay import task_worked, without_hidden
from coterie.orchestration.turns import Group, Question, check_samples, go_on, make_turn, turn_key
from coterie.types import EncodedPrompt, Messages, Outcome, Place, Sample, Sampling, Sight, Task, Turn

# A protocol may only await `ask` and gather over it, so a wake-up passes through a few hops of the event loop at most.
_HOPS = 32

T = TypeVar("T")


class _Fresh(NamedTuple):
    """A question that was asked since the last step, or a group of them, and who waits for the turns."""

    questions: Sequence[Question]
    waiters: Sequence[asyncio.Future[Turn]]
    ledger: Ledger


@dataclass(slots=True)
class _Open:
    """A turn that is waited for by one or more episodes."""

    question: Question
    encoded: EncodedPrompt
    waiters: list[asyncio.Future[Turn]] = field(default_factory=list)

    @property
    def cost(self) -> int:
        return self.encoded.length + self.question.policy.sampling.max_tokens


class Worker:
    """Runs episodes in this process.

    Args:
        policies: By name.
        engines: Engine id to its replicas.
        limits: For each episode.
        deadline: Seconds an engine may take for one call.
    """

    def __init__(
        self,
        policies: Mapping[str, PolicySpec],
        engines: Mapping[str, Sequence[EngineClient]],
        limits: TaskLimits = TaskLimits(),  # noqa: B008 - frozen
        deadline: float = 600.0,
    ) -> None:
        self.embedding = EmbeddingDoor()
        self._policies, self._engines, self._limits, self._deadline = policies, engines, limits, deadline
        self._open: dict[str, _Open] = {}
        self._fresh: list[_Fresh] = []
        self._episodes: dict[asyncio.Task[Outcome], Job] = {}
        self._examinations: dict[asyncio.Task[tuple[Turn, ...]], Examination] = {}
        self._activity = 0

    async def advance(self, jobs: Sequence[Work], turns: Sequence[Turn]) -> Report:
        """Start jobs, hand in committed turns, run until every episode waits or is done.

        Raises:
            EngineError: prompts could not be encoded; `where` is the engine's id. The worker is of no more use.
        """
        for job in jobs:
            if isinstance(job, Examination):
                self._examinations[asyncio.ensure_future(self._examine(job))] = job
            else:
                self._episodes[asyncio.ensure_future(self._episode(job))] = job
        for turn in turns:
            for waiter in self._open.pop(turn.key).waiters:
                waiter.set_result(turn)
        report = Report()
        await self._rest()
        while fresh := self._take_fresh():
            report.requests += await self._admit(fresh)
            await self._rest()
        for task in [task for task in self._episodes if task.done()]:
            job = self._episodes.pop(task)
            report.outcomes[job.key] = task.result()
        for asked in [asked for asked in self._examinations if asked.done()]:
            report.answers[self._examinations.pop(asked).key] = asked.result()
        return report

    async def perform(self, keys: Sequence[str], replica: int) -> list[Performed]:
        """Have one replica answer these requests, alike in engine and sampling, in one call; handed to no episode yet.

        Raises:
            EngineTimeout: the engine did not answer before the deadline.
            EngineError: it failed, or its answer is none. `where` is a request's place if only that one is at fault.
        """
        waiting = [self._open[key] for key in keys]
        policy, places = waiting[0].question.policy, [open_.question.place for open_ in waiting]
        engine = self._engines[policy.engine][replica]
        start = time.monotonic()
        samples = await self._timed(policy.engine, _generate(engine, waiting))
        seconds = time.monotonic() - start
        check_samples(samples, places, policy.name)
        return [
            Performed(make_turn(open_.question, open_.encoded.dropped, sample), sample, seconds)
            for open_, sample in zip(waiting, samples, strict=True)
        ]

    async def _timed(self, engine: str, answer: Awaitable[T]) -> T:
        """What an engine answers, if it does so before the deadline. The supervisor times this worker in its turn."""
        try:
            async with asyncio.timeout(self._deadline):
                return await answer
        except TimeoutError as late:
            raise EngineTimeout(
                f"an engine did not answer within {self._deadline:g} s", where=engine,
                remedy="raise executor.deadline if the engine is only slow",
            ) from late  # fmt: skip

    def adopt(self, policies: Mapping[str, PolicySpec]) -> None:
        """Ask by these policies from now on; no episode may be open."""
        self._policies = policies

    async def close(self) -> None:
        """Drop all episodes."""
        tasks = [*self._episodes, *self._examinations]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._episodes.clear()
        self._examinations.clear()
        self._open.clear()

    async def _episode(self, job: Job) -> Outcome:
        protocol: SocietyProtocol = registry.impl("protocol", job.protocol.kind)(job.protocol)
        ledger = Ledger(self._limits)
        try:
            outcome = await protocol.run(task_worked(job), job.agents, Asker(self, job, ledger))
        except BudgetSpent as spent:
            # Calls let in beside the refused one are made all the same; ending before them would lose them on resume.
            turns = await asyncio.gather(*ledger.asked.values())
            outcome = Minutes.rebuild(turns).conclude(None, f"no answer: {spent.what}", {CUT_SHORT: spent.what})
        except CoterieError:
            raise
        except Exception as bug:
            raise ProtocolError(
                f"the protocol {job.protocol.kind!r} failed: {type(bug).__name__}: {bug}",
                where=f"society {job.society!r}, task {job.task.id!r}",
                remedy="mend the protocol; `coterie resume` goes on from here",
            ) from bug
        finally:
            self._activity += 1
        return dataclasses.replace(without_hidden(outcome, job), turns=tuple(sorted(ledger.asked)))

    async def _examine(self, examination: Examination) -> tuple[Turn, ...]:
        """The episode is over: its limits do not bind what is asked about it."""
        ledger, task = Ledger(TaskLimits()), examination.task
        wanted = examination.inquiries
        try:
            asked = [self.ask(task, i.policy, i.prompt, i.place, ledger, sampling=i.sampling) for i in wanted]
            return tuple(await asyncio.gather(*asked))
        finally:
            self._activity += 1

    async def ask(
        self, task: Task, policy_name: str, prompt: Messages, place: Place, ledger: Ledger, said: Sequence[Turn] = (),
        sampling: Sampling | None = None, choices: Sequence[str] = (), begun: Begun | None = None,
    ) -> Turn:  # fmt: skip
        """Queue one request; equal questions at equal places are one. A reply that is `begun` is no longer for it."""
        policy = self._policies[policy_name]
        if sampling is not None:
            policy = dataclasses.replace(policy, sampling=sampling)
        if choices:
            policy = dataclasses.replace(policy, sampling=dataclasses.replace(policy.sampling, choices=tuple(choices)))
        if begun:
            if begun.token_ids and policy.sampling.choices:
                raise CreditError("a reply that is one of a few given texts cannot be drawn anew from within",
                                  where=str(place), remedy="make segments longer than such replies")  # fmt: skip
            left = policy.sampling.max_tokens - len(begun.token_ids)
            policy = dataclasses.replace(policy, sampling=dataclasses.replace(policy.sampling, max_tokens=left))
        key = turn_key(place, policy, prompt, said, begun=begun)
        [turn] = await self._queue([Question(key, place, policy, prompt, task, tuple(said), begun=begun)], ledger)
        return turn

    async def ask_together(
        self, task: Task, policy_name: str, prompts: Mapping[Place, Messages], sight: Sight, ledger: Ledger
    ) -> list[Turn]:
        """Queue questions that are answered side by side; the turns in logical order."""
        policy, group = self._policies[policy_name], Group(sight, tuple(sorted(prompts.items())))
        keys = [turn_key(place, policy, prompt, group=group) for place, prompt in group.prompts]
        questions = [
            Question(key, place, policy, prompt, task, group=group)
            for key, (place, prompt) in zip(keys, group.prompts, strict=True)
        ]
        return await self._queue(questions, ledger)

    async def _queue(self, questions: Sequence[Question], ledger: Ledger) -> list[Turn]:
        loop = asyncio.get_running_loop()
        waiters: list[asyncio.Future[Turn]] = [loop.create_future() for _ in questions]
        self._fresh.append(_Fresh(questions, waiters, ledger))
        self._activity += 1
        return await asyncio.gather(*waiters)

    async def _rest(self) -> None:
        """Let every episode run until it waits for a turn, or is done."""
        await self._settle()
        while self.embedding.is_waited_for:
            await self.embedding.flush()
            await self._settle()

    def _take_fresh(self) -> list[_Fresh]:
        """What was asked since the last step, in logical order.

        Within limits an episode asks on when all that it asked before is answered. So its chains of questions side by
        side keep in step, and what the limits refuse does not depend on the order in which replies come.
        """
        fresh = [f for f in self._fresh if f.ledger.is_settled]
        self._fresh = [f for f in self._fresh if not f.ledger.is_settled]
        return sorted(fresh, key=lambda f: (f.questions[0].place, f.questions[0].key))

    async def _settle(self) -> None:
        quiet = 0
        while quiet < _HOPS:
            before = self._activity
            await asyncio.sleep(0)
            quiet = quiet + 1 if self._activity == before else 0

    async def _admit(self, fresh: Sequence[_Fresh]) -> list[Request]:
        """Encode what was asked, and reserve it in this order with each episode's ledger."""
        new = {question.key: question for questions, _, _ in fresh for question in questions}
        found = await self._encode(question for key, question in new.items() if key not in self._open) | self._open
        requests = []
        for questions, waiters, ledger in fresh:
            costs = {question.key: found[question.key].cost for question in questions}
            try:
                ledger.reserve(costs, waiters)
            except BudgetSpent as spent:
                for waiter in waiters:
                    waiter.set_exception(spent)
                self._activity += 1
                continue
            if not costs.keys() <= self._open.keys():
                self._open.update((key, found[key]) for key in costs)
                requests.append(_request(questions, sum(costs.values())))
            for key, waiter in zip(costs, waiters, strict=True):
                self._open[key].waiters.append(waiter)
        return requests

    async def _encode(self, questions: Iterable[Question]) -> dict[str, _Open]:
        alike: dict[tuple[PolicySpec, int], list[Question]] = {}
        for question in questions:
            alike.setdefault((question.policy, question.room), []).append(question)
        found = {}
        for (policy, room), mine in alike.items():
            client = self._engines[policy.engine][0]
            sampling = dataclasses.replace(policy.sampling, max_tokens=room)
            try:
                encoded = await self._timed(policy.engine, client.encode([q.prompt for q in mine], sampling))
            except EngineError as error:
                raise type(error)(error.what, where=policy.engine, remedy=error.remedy) from error
            for question, prompt in zip(mine, encoded, strict=True):
                speaking = dataclasses.replace(prompt, adapter=policy.adapter)
                found[question.key] = _Open(question, go_on(speaking, question.said_ids))
        return found


async def _generate(engine: EngineClient, waiting: Sequence[_Open]) -> list[Sample]:
    """One call for questions that are drawn alike, and all stand alone or all in groups."""
    sampling, first = waiting[0].question.policy.sampling, waiting[0].question.group
    if first is None:
        return await engine.generate([w.encoded for w in waiting], sampling, [w.question.place for w in waiting])
    groups = [list(group) for _, group in groupby(waiting, key=lambda w: w.question.group)]
    prompts, places = [[w.encoded for w in g] for g in groups], [[w.question.place for w in g] for g in groups]
    return await engine.generate_together(prompts, sampling, places, first.sight)


def _request(questions: Sequence[Question], cost: int) -> Request:
    first, *others = questions
    sight = first.group.sight if first.group else None
    policy, keys = first.policy, tuple(question.key for question in others)
    return Request(first.key, first.place, policy.name, cost, policy.sampling, sight, keys)
