"""The local executor: one worker (and one that examines) and one replica of each engine, all in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from coterie.agents.engines.base import Engine, Sleeper
from coterie.orchestration.config import LocalConfig
from coterie.orchestration.executor import Staff, WorkerClient
from coterie.orchestration.learners import Learner, LearnerSpec
from coterie.orchestration.pool import EngineInfo, LocalClient, PolicySpec, describe, publishable
from coterie.orchestration.worker import Worker
from coterie.types import Weights


class LocalExecutor:
    """Runs everything in this process. The default."""

    def __init__(self, config: LocalConfig, staff: Staff) -> None:
        self.config, self.staff = config, staff
        self.workers: Sequence[WorkerClient] = ()
        self._workers: list[Worker] = []
        self.engines: dict[str, EngineInfo] = {}
        self._engines: dict[str, Engine] = {}
        self._learners: list[Learner] = []
        self._facts: dict[str, Any] = {}
        self._policies = staff.policies

    async def start(self) -> None:
        for name, spec in self.staff.engines.items():
            engine = spec.build(self.config.deadline)
            self._engines[name] = engine
            await engine.start()
            self.engines[name], self._facts[name] = describe(engine)
        self._workers = [self._hire() for _ in range(1 + self.staff.examines)]
        self.workers = self._workers

    def _hire(self) -> Worker:
        clients = {name: [LocalClient(engine)] for name, engine in self._engines.items()}
        return Worker(self._policies, clients, self.staff.limits, self.config.deadline)

    async def revive(self, worker: int) -> None:
        await self._workers[worker].close()
        self._workers[worker] = self._hire()

    async def restart_engine(self, engine: str, replica: int) -> None:
        await self._engines[engine].close()
        await self._engines[engine].start()

    async def publish(self, policies: Mapping[str, PolicySpec], weights: Sequence[tuple[str, Weights]]) -> None:
        for name, new in weights:
            await publishable(self._engines[name]).publish(new)
        self._policies = policies
        for worker in self._workers:
            worker.adopt(policies)

    async def sleep(self) -> None:
        for engine in self._engines.values():
            if isinstance(engine, Sleeper):
                await engine.sleep()

    def hire_learners(self, specs: Sequence[LearnerSpec]) -> list[Learner]:
        first = len(self._learners)
        for spec in specs:
            self._learners.append(spec.build())
        return self._learners[first:]

    async def close(self) -> None:
        """Close every engine and learner; raises the first error of engines that fail to."""
        engines, self._engines = self._engines, {}
        learners, self._learners = self._learners, []
        workers, self._workers, self.workers = self._workers, [], ()
        for worker in workers:
            await worker.close()
        for learner in learners:
            await asyncio.to_thread(learner.close)
        closed = await asyncio.gather(*(engine.close() for engine in engines.values()), return_exceptions=True)
        for error in filter(None, closed):
            raise error

    def describe(self) -> dict[str, Any]:
        return {"kind": "local", "workers": 1, "engines": self._facts}
