"""Play a society without a model, through the real supervisor; and the conformance suite of protocols."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coterie.agents.seats import Agent
from coterie.config.schema import PolicyConfig
from coterie.errors import CoterieError
from coterie.journal import Journal
from coterie.orchestration.budget import RunBudget
from coterie.orchestration.config import LocalConfig
from coterie.orchestration.executor import Executor, Staff
from coterie.orchestration.judging import Judge
from coterie.orchestration.local import LocalExecutor
from coterie.orchestration.pool import plan
from coterie.orchestration.protocols.config import ProtocolConfig
from coterie.orchestration.supervisor import Observer, Quiet, Supervisor
from coterie.orchestration.worker import Job, TaskLimits
from coterie.testing.sums import Sums, SumsConfig

AGENTS = (Agent("ann", "base", "You are calm."), Agent("bob", "base", "You are bold."), Agent("cleo", "base"))


@contextmanager
def play(
    *protocols: ProtocolConfig,
    engine: Mapping[str, Any] | None = None,
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
) -> Iterator[Journal]:
    """Work sums with these protocols and the scripted engine; yields the journal.

    `engine` holds fields of the scripted engine's config; `path` is a journal to create or to go on with, a temporary
    one if None; `executor` stands in for a local one, built for the same `staff(...)`.

    Raises:
        CoterieError: as the supervisor raises it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        where = path or Path(scratch) / "journal.sqlite"
        with Journal.open(where) if where.exists() else Journal.create(where) as journal:
            bench = Sums(SumsConfig(limit=num_tasks), seed, where.parent)
            jobs = [
                Job(config.label, task, tuple(agents), config, seed)
                for task in bench.tasks()
                for protocol in protocols
                for config in protocol.expand()
            ]
            crew = staff(engine, seed=seed, exact=exact, limits=limits)
            host: Executor = executor or LocalExecutor(LocalConfig(attempts=attempts, deadline=deadline), crew)
            asyncio.run(_work(journal, host, crew, bench, jobs, budget or RunBudget(), exact, observer))
            yield journal


def staff(
    engine: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    exact: bool = True,
    limits: TaskLimits = TaskLimits(),  # noqa: B008
) -> Staff:
    """One policy `base` on the scripted engine."""
    PolicyConfig.model_rebuild(force=True)
    policy = PolicyConfig.model_validate({"engine": {"kind": "scripted", **(engine or {})}, "model": "none"})
    engines, policies = plan({"base": policy}, seed, exact)
    return Staff(engines, policies, limits)


async def _work(
    journal: Journal,
    host: Executor,
    crew: Staff,
    bench: Sums,
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
        judge = Judge(bench.grader(), {}, journal)
        supervisor = Supervisor(
            journal, host, dict(crew.policies), judge, budget, exact=exact, observer=observer or Quiet()
        )
        await supervisor.run(owed)
    finally:
        await host.close()


def check_protocol(config: ProtocolConfig, *, agents: Sequence[Agent] = AGENTS) -> None:
    """What every protocol owes its users; raises AssertionError with the property that fails.

    Episodes end, also where replies are empty or cut; answers come from replies; the outcome names real turns and
    agents; the same seed gives the same journal, whatever the batch size.
    """
    with play(config, agents=agents) as journal:
        digest = journal.digest()
        _check_outcomes(journal, {agent.name for agent in agents})
    with play(config, agents=agents, engine={"max_batch": 2}) as journal:
        assert journal.digest() == digest, "the journal depends on how calls are batched"
    with play(config, agents=agents, exact=False) as journal:
        assert journal.digest() == digest, "the journal depends on the order in which replies come"
    with play(config, agents=agents, engine={"faults": {"empty": 0.3, "cut": 0.3}}) as journal:
        _check_outcomes(journal, {agent.name for agent in agents})
    try:
        with play(config, agents=agents, limits=TaskLimits(calls=1)) as journal:
            _check_outcomes(journal, {agent.name for agent in agents})
    except CoterieError as error:
        raise AssertionError(f"an episode out of budget broke the run: {error}") from error


def _check_outcomes(journal: Journal, agents: set[str]) -> None:
    assert journal.count("episode") > 0, "no episode ended"
    for fact in journal.facts("episode"):
        episode = fact.payload
        said = set()
        for turns in episode["rounds"]:
            for name, key in turns.items():
                assert name.partition("#")[0] in agents, (
                    f"{fact.key} names the agent {name!r}, who is not in the society"
                )
                turn = journal.get(key)
                assert turn is not None, f"{fact.key} names the turn {key!r}, which was never taken"
                said.add(turn["answer"])
        assert episode["answer"] is None or episode["answer"] in said, f"{fact.key}: nobody gave the society's answer"
        for edge in episode["edges"]:
            assert {edge["source"], edge["target"]} <= agents, f"{fact.key}: an edge names a stranger"
