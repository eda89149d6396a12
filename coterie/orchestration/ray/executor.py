"""The Ray executor: agent workers and engine replicas are actors; the driver keeps the journal."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
import ray.exceptions
from ray.util.placement_group import PlacementGroup, remove_placement_group

from coterie.errors import EngineError, WorkerLost
from coterie.orchestration.config import RayConfig
from coterie.orchestration.executor import Staff
from coterie.orchestration.jobs import Performed, Report, Work
from coterie.orchestration.pool import EngineInfo
from coterie.orchestration.ray.actors import EngineActor, WorkerActor, first_line, unwrapped
from coterie.orchestration.ray.cluster import Cluster
from coterie.orchestration.ray.placement import bundle, place, reserve
from coterie.types import Turn

_START_SECONDS = 600.0
_REVIVE_SECONDS = 180.0
# An engine that does not close within this time hangs with its whole process.
_CLOSE_SECONDS = 60.0


class RayWorker:
    """A worker actor as the supervisor moves it."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    async def advance(self, jobs: Sequence[Work], turns: Sequence[Turn]) -> Report:
        report: Report = await self._call("advance", jobs, turns)
        return report

    async def perform(self, keys: Sequence[str], replica: int) -> list[Performed]:
        performed: list[Performed] = await self._call("perform", keys, replica)
        return performed

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return await getattr(self.actor, method).remote(*arguments)
        except ray.exceptions.RayTaskError as error:
            raise unwrapped(error) from None
        except ray.exceptions.RayError as lost:
            raise WorkerLost(f"an agent worker was lost: {first_line(lost)}") from None


class RayExecutor:
    """Runs the episodes in `workers` actors and each engine in `replicas` actors, spread over the nodes."""

    def __init__(self, config: RayConfig, staff: Staff) -> None:
        self.config, self.staff = config, staff
        self.workers: list[RayWorker] = []
        self.engines: dict[str, EngineInfo] = {}
        self._cluster = Cluster(config.address)
        self._num_workers = config.workers + staff.examines
        self._actors: dict[str, list[Any]] = {}
        self._group: PlacementGroup | None = None
        self._facts: dict[str, Any] = {}

    async def start(self) -> None:
        await asyncio.to_thread(self._cluster.connect)
        group = self._group = await asyncio.to_thread(self._reserve)
        first = self._num_workers
        for name, spec in self.staff.engines.items():
            places = range(first, first + self.config.replicas)
            first += self.config.replicas
            self._actors[name] = [
                place(EngineActor, group, index, gpus=self.config.engine_gpus, restarts=-1).remote(
                    spec.pack(), self.staff.imports, self.config.deadline
                )
                for index in places
            ]
        for name, actors in self._actors.items():
            described = await asyncio.gather(*(self._ready(actor, _START_SECONDS) for actor in actors))
            info, self._facts[name] = described[0]
            self.engines[name] = EngineInfo(info.max_batch, info.is_continuous, len(actors))
        self.workers = [self._hire(index) for index in range(self._num_workers)]

    def _reserve(self) -> PlacementGroup:
        config = self.config
        worker = bundle(config.worker_cpus, config.worker_gpus)
        engine = bundle(config.engine_cpus, config.engine_gpus)
        return reserve([worker] * self._num_workers + [engine] * (config.replicas * len(self.staff.engines)))

    def _hire(self, index: int) -> RayWorker:
        assert self._group is not None
        worker = place(WorkerActor, self._group, index, gpus=self.config.worker_gpus)
        # Engine configs may be a plugin's, which the worker has not imported when it reads this.
        staff = replace(self.staff, engines={})
        return RayWorker(worker.remote(staff, self._actors, self.config.deadline))

    async def _ready(self, actor: Any, seconds: float) -> tuple[EngineInfo, dict[str, Any]]:
        """Wait for an engine actor, also through a restart of its process.

        Raises:
            EngineError: it died for good, or did not come within so many seconds.
        """
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        described: tuple[EngineInfo, dict[str, Any]] = await actor.ready.remote()
                        return described
                    except ray.exceptions.ActorUnavailableError:
                        await asyncio.sleep(0.2)
        except ray.exceptions.RayTaskError as error:
            raise unwrapped(error) from None
        except ray.exceptions.RayActorError as dead:
            raise EngineError(f"an engine actor died: {first_line(dead)}", remedy="see its log on its node") from None
        except TimeoutError:
            raise EngineError(
                f"an engine was not ready within {seconds:g} s", remedy="see its log on its node, and try again"
            ) from None

    async def revive(self, worker: int) -> None:
        ray.kill(self.workers[worker].actor)
        self.workers[worker] = self._hire(worker)

    async def restart_engine(self, engine: str, replica: int) -> None:
        actor = self._actors[engine][replica]
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await actor.close.remote()
        except ray.exceptions.RayActorError:
            pass  # Ray starts another process already.
        except (TimeoutError, ray.exceptions.RayTaskError):
            ray.kill(actor, no_restart=False)
        await self._ready(actor, _REVIVE_SECONDS)

    async def close(self) -> None:
        actors = [w.actor for w in self.workers] + [a for actors in self._actors.values() for a in actors]
        group, self._group, self.workers, self._actors = self._group, None, [], {}
        try:
            for actor in actors:
                ray.kill(actor)
            if group is not None:
                remove_placement_group(group)
        finally:
            await asyncio.to_thread(self._cluster.close)

    def describe(self) -> dict[str, Any]:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        return {"kind": "ray", "workers": len(self.workers), "nodes": len(nodes), "engines": self._facts}
