"""Play a society without a model, through the real supervisor."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coterie.agents.seats import Agent
from coterie.config.load import rebuild
from coterie.config.schema import PolicyConfig
from coterie.envs.benchmarks.base import Benchmark
from coterie.journal import Journal
from coterie.orchestration.budget import RunBudget
from coterie.orchestration.config import LocalConfig
from coterie.orchestration.executor import Executor, Staff
from coterie.orchestration.jobs import Job, TaskLimits
from coterie.orchestration.judging import Judge
from coterie.orchestration.local import LocalExecutor
from coterie.orchestration.pool import plan
from coterie.orchestration.probes import Interviewer
from coterie.orchestration.protocols.config import ProtocolConfig
from coterie.orchestration.supervisor import Observer, Quiet, Supervisor
from coterie.testing.sums import Sums, SumsConfig

AGENTS = (Agent("ann", "base", "You are calm."), Agent("bob", "base", "You are bold."), Agent("cleo", "base"))


@contextmanager
def play(
    *protocols: ProtocolConfig,
    engine: Mapping[str, Any] | None = None,
    max_tokens: int = 64,
    benchmark: Benchmark | None = None,
    num_tasks: int = 6,
    agents: Sequence[Agent] = AGENTS,
    seed: int = 0,
    exact: bool = True,
    budget: RunBudget | None = None,
    limits: TaskLimits = TaskLimits(),  # noqa: B008 - frozen
    executor: Executor | None = None,
    attempts: int = 3,
    deadline: float = 60.0,
    path: Path | None = None,
    observer: Observer | None = None,
    interviewer: Interviewer | None = None,
) -> Iterator[Journal]:
    """Work tasks with these protocols and the scripted engine; yields the journal.

    `benchmark` stands in for `num_tasks` sums; `engine` holds fields of the scripted engine's config; `path` is a
    journal to create or to go on with, a temporary one if None; `executor` stands in for a local one, built for the
    same `staff(...)`.

    Raises:
        CoterieError: as the supervisor raises it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        where = path or Path(scratch) / "journal.sqlite"
        with Journal.open(where) if where.exists() else Journal.create(where) as journal:
            bench = benchmark or Sums(SumsConfig(limit=num_tasks), seed, where.parent)
            jobs = [
                Job(config.label, task, tuple(agents), config, seed)
                for task in bench.tasks()
                for protocol in protocols
                for config in protocol.expand()
            ]
            judge = Judge(bench.grader(), {}, journal, interviewer)
            crew = staff(engine, max_tokens=max_tokens, seed=seed, exact=exact, limits=limits, examines=judge.inquires)
            host: Executor = executor or LocalExecutor(LocalConfig(attempts=attempts, deadline=deadline), crew)
            asyncio.run(_work(journal, host, crew, judge, jobs, budget or RunBudget(), exact, observer))
            yield journal


def staff(
    engine: Mapping[str, Any] | None = None,
    *,
    max_tokens: int = 64,
    seed: int = 0,
    exact: bool = True,
    limits: TaskLimits = TaskLimits(),  # noqa: B008
    examines: bool = False,
) -> Staff:
    """One policy `base` on the scripted engine."""
    rebuild()
    scripted = {"kind": "scripted", **(engine or {})}
    policy = PolicyConfig.model_validate({"engine": scripted, "model": "none", "sampling": {"max_tokens": max_tokens}})
    engines, policies = plan({"base": policy}, seed, exact, Path())
    return Staff(engines, policies, limits, examines=examines)


async def _work(
    journal: Journal,
    host: Executor,
    crew: Staff,
    judge: Judge,
    jobs: list[Job],
    budget: RunBudget,
    exact: bool,
    observer: Observer | None,
) -> None:
    try:
        await host.start()
        for fact in journal.facts("turn"):
            budget.spend(fact.payload["num_prompt_tokens"] + fact.payload["num_tokens"])
        owed = [job for job in jobs if journal.get(job.key) is None]
        supervisor = Supervisor(
            journal, host, dict(crew.policies), judge, budget, exact=exact, observer=observer or Quiet()
        )
        await supervisor.run(owed)
    finally:
        await host.close()
