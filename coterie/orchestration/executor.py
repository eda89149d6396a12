"""What an executor is: workers to run episodes and engines to answer them, here or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from coterie.errors import CoterieError
from coterie.orchestration.config import ExecutorConfig
from coterie.orchestration.jobs import Performed, Report, TaskLimits, Work
from coterie.orchestration.learners import Learner, LearnerSpec
from coterie.orchestration.pool import EngineInfo, EngineSpec, PolicySpec
from coterie.types import Turn, Weights


def ignore(error: CoterieError) -> None:
    """What is told to nobody."""


@dataclass(frozen=True, slots=True)
class Staff:
    """What an executor is built from."""

    engines: Mapping[str, EngineSpec]
    policies: Mapping[str, PolicySpec]
    limits: TaskLimits
    imports: tuple[str, ...] = ()
    """Plugin modules that other processes must import too; paths are absolute."""
    examines: bool = False
    """One worker more, the last, runs no protocol: it makes the inquiries about episodes, whose prompts may hold
    gold."""
    on_failure: Callable[[CoterieError], None] = ignore
    """Told of what was found outside of any call, and is being mended."""


class WorkerClient(Protocol):
    """A worker as the supervisor moves it; see `worker.Worker`. Raises WorkerLost when its process died."""

    async def advance(self, jobs: Sequence[Work], turns: Sequence[Turn]) -> Report: ...

    async def perform(self, keys: Sequence[str], replica: int) -> list[Performed]: ...


class Executor(Protocol):
    """Built as `impl(config, staff)`; `start` may raise EnvironmentMissing, `close` is safe to call twice."""

    @property
    def config(self) -> ExecutorConfig: ...

    @property
    def workers(self) -> Sequence[WorkerClient]: ...

    @property
    def engines(self) -> Mapping[str, EngineInfo]:
        """By engine id, filled by `start`."""
        ...

    async def start(self) -> None: ...

    async def revive(self, worker: int) -> None:
        """Replace a lost worker by a fresh one at the same index."""
        ...

    async def restart_engine(self, engine: str, replica: int) -> None:
        """Bring a failed or hung engine back; called after each EngineError, also when the engine lives."""
        ...

    async def publish(self, policies: Mapping[str, PolicySpec], weights: Sequence[tuple[str, Weights]]) -> None:
        """Have engines generate with these weights, given by engine id, and workers ask by these policies.

        All replicas of an engine take them; nothing may be in flight.

        Raises:
            EngineError: an engine could not take them.
        """
        ...

    async def sleep(self) -> None:
        """Have the engines whose config says so leave their device's memory to learners; they wake by themselves."""
        ...

    def hire_learners(self, specs: Sequence[LearnerSpec]) -> Sequence[Learner]:
        """Learners as specified, after `start`; blocks until their models are loaded. `close` closes them.

        Raises:
            EnvironmentMissing: a model or a device is missing, or there is no room.
            WorkerLost: their processes died again and again.
        """
        ...

    async def close(self) -> None: ...

    def describe(self) -> dict[str, Any]:
        """Facts on where the run ran, for its record; engine id to its description under `engines`."""
        ...
