"""What benchmarks of societies share: a society on a stage. `_results` has what all of them share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from _results import save, save_gpu, spread, timed

from coterie import registry
from coterie.config.load import loads
from coterie.experiments.run import owed
from coterie.journal import Journal
from coterie.orchestration.budget import RunBudget
from coterie.orchestration.executor import Staff
from coterie.orchestration.jobs import TaskLimits
from coterie.orchestration.judging import Judge
from coterie.orchestration.local import LocalExecutor
from coterie.orchestration.pool import Learning, plan
from coterie.orchestration.supervisor import Quiet, Supervisor

__all__ = ["Stage", "save", "save_gpu", "spread", "timed"]


class Stage:
    """Started engines on which societies are worked one after the other, without a run folder and without a report.

    Args:
        config: An experiment whose policies all that are worked here share.
        learning: Gives every policy an adapter, if it says so.
    """

    def __init__(self, config: dict[str, Any], learning: Learning | None = None) -> None:
        loaded = loads(config)
        engines, self.policies = plan(loaded.config.policies, 0, False, loaded.base, learning)
        self.executor = LocalExecutor(loaded.config.executor, Staff(engines, self.policies, TaskLimits()))  # type: ignore[arg-type]

    async def start(self) -> None:
        await self.executor.start()

    async def work(self, config: dict[str, Any], folder: Path) -> tuple[float, list[dict[str, Any]]]:
        """Seconds, and the turns that were taken. Raises AssertionError unless every episode ended and all verifies."""
        loaded = loads(config)
        kind = loaded.config.benchmark.kind
        benchmark = registry.impl("benchmark", kind)(loaded.config.benchmark, 0, folder)
        with Journal.create(folder / "journal.sqlite") as journal:
            jobs = owed(loaded.config, benchmark, journal)
            judge = Judge(benchmark.grader(), {}, journal)
            supervisor = Supervisor(
                journal, self.executor, self.policies, judge, RunBudget(), exact=False, observer=Quiet()
            )
            start = time.perf_counter()
            await supervisor.run(jobs)
            seconds = time.perf_counter() - start
            assert journal.verify() == []
            assert journal.count("episode") == len(jobs)
            return seconds, [fact.payload for fact in journal.facts("turn")]
