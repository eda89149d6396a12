"""The actors: one holds an engine replica, one runs episodes. Neither holds anything that cannot be rebuilt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

from coterie.agents.engines.base import Engine
from coterie.config.plugins import import_plugins
from coterie.errors import EngineError
from coterie.orchestration.executor import Staff
from coterie.orchestration.jobs import Performed, Report, Work
from coterie.orchestration.pool import EngineInfo, EngineSpec, describe
from coterie.orchestration.redaction import redacting
from coterie.orchestration.worker import Worker
from coterie.types import EncodedPrompt, Place, Prompt, Sample, Sampling, Turn

# Seconds to wait for an engine actor that Ray is restarting, its model's loading included.
_PATIENCE = 180.0


class EngineActor:
    """One engine replica. Ray restarts the process if it dies; the first call then starts the engine again.

    Args:
        spec: A packed `EngineSpec`.
        imports: As `Staff.imports`.
        deadline: Seconds for one call.
    """

    def __init__(self, spec: Mapping[str, Any], imports: tuple[str, ...], deadline: float) -> None:
        self._spec, self._imports, self._deadline = spec, imports, deadline
        self._engine: Engine | None = None
        self._starting: asyncio.Future[Engine] | None = None

    async def ready(self) -> tuple[EngineInfo, dict[str, Any]]:
        """Start the engine if it is not started; returns its numbers and facts."""
        with redacting():
            return describe(await self._started())

    async def _started(self) -> Engine:
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
        return await self._starting

    async def _start(self) -> Engine:
        if self._engine is None:
            import_plugins(self._imports, Path())
            self._engine = EngineSpec.unpack(self._spec).build(self._deadline)
        await self._engine.start()
        return self._engine

    async def encode(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[EncodedPrompt]:
        with redacting():
            return (await self._started()).encode(prompts, sampling)

    async def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, keys: Sequence[Place]
    ) -> list[Sample]:
        with redacting():
            return await (await self._started()).generate(prompts, sampling, keys)

    async def close(self) -> None:
        """Close the engine; the next call starts it again."""
        with redacting():
            self._starting = None
            if self._engine is not None:
                await self._engine.close()


class _EngineGone(EngineError):
    """The engine's process is not there; Ray may be starting another."""


class RayClient:
    """An engine actor as a worker calls it."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def encode(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[EncodedPrompt]:
        # Encoding twice does no harm, so this waits for a dead actor to come back by itself.
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                encoded: list[EncodedPrompt] = await self._call("encode", prompts, sampling)
                return encoded
            except _EngineGone:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)

    async def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, keys: Sequence[Place]
    ) -> list[Sample]:
        samples: list[Sample] = await self._call("generate", prompts, sampling, keys)
        return samples

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return await getattr(self._actor, method).remote(*arguments)
        except ray.exceptions.RayTaskError as error:
            raise unwrapped(error) from None
        except ray.exceptions.RayError as lost:
            gone = _EngineGone if isinstance(lost, ray.exceptions.RayActorError) else EngineError
            raise gone(
                f"an engine actor was lost: {first_line(lost)}", remedy="see the worker's log on its node"
            ) from None


class WorkerActor:
    """One agent worker."""

    def __init__(self, staff: Staff, engines: Mapping[str, Sequence[Any]], deadline: float) -> None:
        import_plugins(staff.imports, Path())
        clients = {name: [RayClient(actor) for actor in actors] for name, actors in engines.items()}
        self._worker = Worker(staff.policies, clients, staff.limits, deadline)

    async def advance(self, jobs: Sequence[Work], turns: Sequence[Turn]) -> Report:
        with redacting():
            return await self._worker.advance(jobs, turns)

    async def perform(self, keys: Sequence[str], replica: int) -> list[Performed]:
        with redacting():
            return await self._worker.perform(keys, replica)


def unwrapped(error: ray.exceptions.RayTaskError) -> BaseException:
    """The exception that the remote code raised."""
    cause = error.cause
    return cause if isinstance(cause, BaseException) else error


def first_line(error: BaseException) -> str:
    """What an exception says first; its name if it says nothing."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
