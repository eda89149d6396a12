"""The Ray executor: agent workers and engine replicas are actors; the driver keeps the journal."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
import ray.exceptions
from ray.util.placement_group import PlacementGroup, remove_placement_group

from coterie.errors import CoterieError, EngineTimeout, WorkerLost
from coterie.orchestration.config import RayConfig
from coterie.orchestration.executor import Staff
from coterie.orchestration.jobs import Performed, Report, Work
from coterie.orchestration.learners import Learner, LearnerSpec
from coterie.orchestration.pool import EngineInfo, PolicySpec
from coterie.orchestration.ray.actors import Editions, EngineActor, WorkerActor, first_line, unwrapped
from coterie.orchestration.ray.cluster import Cluster
from coterie.orchestration.ray.placement import bundle, place, reserve
from coterie.orchestration.ray.replicas import Publication, Replica
from coterie.orchestration.ray.watchdog import Watchdog
from coterie.types import Turn, Weights

if TYPE_CHECKING:
    from coterie.orchestration.ray.learners import RayLearner

_START_SECONDS = 600.0


class RayWorker:
    """A worker actor as the supervisor moves it; `name` is what errors call it."""

    def __init__(self, actor: Any, name: str) -> None:
        self.actor, self.name = actor, name

    async def advance(self, jobs: Sequence[Work], turns: Sequence[Turn]) -> Report:
        report: Report = await self._call("advance", jobs, turns)
        return report

    async def perform(self, keys: Sequence[str], replica: int) -> list[Performed]:
        performed: list[Performed] = await self._call("perform", keys, replica)
        return performed

    async def adopt(self, policies: Mapping[str, PolicySpec], editions: Mapping[str, Editions]) -> None:
        """See `WorkerActor`."""
        await self._call("adopt", policies, editions)

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return await getattr(self.actor, method).remote(*arguments)
        except ray.exceptions.RayTaskError as error:
            raise unwrapped(error) from None
        except ray.exceptions.RayError as lost:
            raise WorkerLost(f"an agent worker was lost: {first_line(lost)}", where=self.name) from None


class RayExecutor:
    """Runs the episodes in `workers` actors and each engine in `replicas` actors, spread over the nodes."""

    def __init__(self, config: RayConfig, staff: Staff) -> None:
        self.config, self.staff = config, staff
        self.workers: list[RayWorker] = []
        self.engines: dict[str, EngineInfo] = {}
        self._cluster = Cluster(config.address)
        self._num_workers = config.workers + staff.examines
        self._replicas: dict[str, list[Replica]] = {}
        self._policies = staff.policies
        self._published: dict[str, dict[str, Publication]] = {name: {} for name in staff.engines}
        self._editions = itertools.count(1)
        self._group: PlacementGroup | None = None
        self._facts: dict[str, Any] = {}
        self._learners: list[RayLearner] = []
        self._learner_group: PlacementGroup | None = None
        self._watchdog: Watchdog | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        await asyncio.to_thread(self._cluster.connect)
        self._loop = asyncio.get_running_loop()
        self._watchdog = Watchdog(self.config.heartbeat, self._tell)
        self._group = await asyncio.to_thread(self._reserve)
        first = self._num_workers
        for name in self.staff.engines:
            self._replicas[name] = [self._install(name, first, number) for number in range(self.config.replicas)]
            first += self.config.replicas
        for name, replicas in self._replicas.items():
            described = await asyncio.gather(*(replica.ready(_START_SECONDS) for replica in replicas))
            info, self._facts[name] = described[0]
            self.engines[name] = EngineInfo(info.max_batch, info.is_continuous, len(replicas))
        self.workers = [self._hire(index) for index in range(self._num_workers)]

    def _tell(self, error: CoterieError) -> None:
        """Say what was found in another thread."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # of a loop that has ended meanwhile
            self._loop.call_soon_threadsafe(self.staff.on_failure, error)

    def _reserve(self) -> PlacementGroup:
        config = self.config
        worker = bundle(config.worker_cpus, config.worker_gpus)
        engine = bundle(config.engine_cpus, config.engine_gpus)
        return reserve([worker] * self._num_workers + [engine] * (config.replicas * len(self.staff.engines)))

    def _install(self, engine: str, first: int, number: int) -> Replica:
        """The actor of one replica; `first` is the bundle of the first."""
        assert self._group is not None
        assert self._watchdog is not None
        made = place(EngineActor, self._group, first + number, gpus=self.config.engine_gpus, restarts=-1)
        actor = made.remote(self.staff.engines[engine].pack(), self.staff.imports, self.config.deadline)
        name = f"{engine}, replica {number}"
        self._watchdog.watch(actor, name, EngineTimeout, restarts=True)
        return Replica(actor, name, self.config.deadline, self.config.attempts)

    def _hire(self, index: int) -> RayWorker:
        assert self._group is not None
        assert self._watchdog is not None
        editions = self._held()
        engines = {
            name: ([replica.actor for replica in replicas], editions[name]) for name, replicas in self._replicas.items()
        }
        made = place(WorkerActor, self._group, index, gpus=self.config.worker_gpus)
        # Engine configs may be a plugin's, which the worker has not imported when it reads this.
        staff = Staff({}, self._policies, self.staff.limits, self.staff.imports)
        worker = RayWorker(made.remote(staff, engines, self.config.deadline), f"worker {index}")
        self._watchdog.watch(worker.actor, worker.name, WorkerLost)
        return worker

    def _held(self) -> dict[str, dict[str, int]]:
        return {
            name: {adapter: one.edition for adapter, one in published.items()}
            for name, published in self._published.items()
        }

    async def revive(self, worker: int) -> None:
        self._dismiss(self.workers[worker])
        self.workers[worker] = self._hire(worker)

    def _dismiss(self, worker: RayWorker) -> None:
        if self._watchdog is not None:
            self._watchdog.forget(worker.actor)
        ray.kill(worker.actor)

    async def restart_engine(self, engine: str, replica: int) -> None:
        found = self._replicas[engine][replica]
        await found.restart()
        await self._bring([found], engine)

    async def publish(self, policies: Mapping[str, PolicySpec], weights: Sequence[tuple[str, Weights]]) -> None:
        for name, new in weights:
            self._published[name][new.adapter] = Publication(new, next(self._editions))
        self._policies = policies
        await asyncio.gather(*(self._bring(self._replicas[name], name) for name in {name for name, _ in weights}))
        await asyncio.gather(*(self._inform(index) for index in range(len(self.workers))))

    async def sleep(self) -> None:
        """Nothing: a learner has a device of its own, and `validate` refuses engines that are to sleep here."""

    async def _bring(self, replicas: Sequence[Replica], engine: str) -> None:
        published = self._published[engine]
        try:
            await asyncio.gather(*(replica.bring(published, self.staff.on_failure) for replica in replicas))
        finally:
            for publication in published.values():
                publication.forget()

    async def _inform(self, index: int) -> None:
        """Have a worker ask by the policies as they are now; one that is lost is replaced by one that knows them."""
        try:
            async with asyncio.timeout(self.config.deadline):
                await self.workers[index].adopt(self._policies, self._held())
        except (TimeoutError, WorkerLost):
            await self.revive(index)

    def hire_learners(self, specs: Sequence[LearnerSpec]) -> list[Learner]:
        from coterie.orchestration.ray.learners import LearnerActor, RayLearner, count_threads

        config, threads = self.config, count_threads(self.config.learner_cpus)
        group = self._learner_group = reserve([bundle(config.learner_cpus, config.learner_gpus)] * len(specs))

        def hire(index: int, name: str) -> Any:
            if self._watchdog is None:
                raise WorkerLost("a learner is not replaced: the run has ended", where=name)
            made = place(LearnerActor, group, index, gpus=config.learner_gpus)
            actor = made.remote(specs[index].pack(), self.staff.imports, threads)
            self._watchdog.watch(actor, name, WorkerLost)
            return actor

        for index, spec in enumerate(specs):
            name = f"the learner of {', '.join(spec.policies)}"
            self._learners.append(
                RayLearner(partial(hire, index, name), name, config.learner_deadline, config.attempts, self._tell)
            )
        for learner in self._learners:
            learner.start()
        return list(self._learners)

    async def close(self) -> None:
        engines = [replica.actor for replicas in self._replicas.values() for replica in replicas]
        actors, learners = [worker.actor for worker in self.workers] + engines, self._learners
        groups = [group for group in (self._group, self._learner_group) if group is not None]
        self._group, self._learner_group, self.workers, self._learners, self._replicas = None, None, [], [], {}
        # Without it nobody is hired any more; a thread may still wait for a learner.
        watchdog, self._watchdog = self._watchdog, None
        try:
            if watchdog is not None:
                await asyncio.to_thread(watchdog.close)
            for actor in actors:
                ray.kill(actor)
            for learner in learners:
                learner.close()
            for group in groups:
                remove_placement_group(group)
        finally:
            await asyncio.to_thread(self._cluster.close)

    def describe(self) -> dict[str, Any]:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        return {"kind": "ray", "workers": len(self.workers), "nodes": len(nodes), "engines": self._facts}
