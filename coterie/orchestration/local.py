"""The local executor: one worker and one replica of each engine, all in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coterie.agents.engines.base import Engine
from coterie.orchestration.config import LocalConfig
from coterie.orchestration.executor import Staff, WorkerClient
from coterie.orchestration.pool import EngineInfo, LocalClient, describe
from coterie.orchestration.worker import Worker


class LocalExecutor:
    """Runs everything in this process. The default."""

    def __init__(self, config: LocalConfig, staff: Staff) -> None:
        self.config, self.staff = config, staff
        self.workers: Sequence[WorkerClient] = ()
        self.engines: dict[str, EngineInfo] = {}
        self._engines: dict[str, Engine] = {}
        self._facts: dict[str, Any] = {}

    async def start(self) -> None:
        for name, spec in self.staff.engines.items():
            engine = spec.build()
            self._engines[name] = engine
            await engine.start()
            self.engines[name], self._facts[name] = describe(engine)
        clients = {name: [LocalClient(engine)] for name, engine in self._engines.items()}
        self._worker = Worker(self.staff.policies, clients, self.staff.limits)
        self.workers = [self._worker]

    async def revive(self, worker: int) -> None:
        raise AssertionError("a worker in this process cannot be lost alone")

    async def restart_engine(self, engine: str, replica: int) -> None:
        await self._engines[engine].close()
        await self._engines[engine].start()

    async def close(self) -> None:
        if self.workers:
            await self._worker.close()
        for engine in self._engines.values():
            await engine.close()
        self.workers, self._engines = (), {}

    def describe(self) -> dict[str, Any]:
        return {"kind": "local", "workers": 1, "engines": self._facts}
