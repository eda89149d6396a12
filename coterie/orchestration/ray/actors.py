"""The actors: one holds an engine replica, one runs episodes. Neither holds anything that cannot be rebuilt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

from coterie.config.plugins import import_plugins
from coterie.errors import EngineError
from coterie.orchestration.executor import Staff
from coterie.orchestration.pool import EngineInfo, EngineSpec, describe
from coterie.orchestration.worker import Job, Performed, Report, Worker
from coterie.types import EncodedPrompt, Place, Prompt, Sample, Sampling, Turn

# Seconds to wait for an engine actor that Ray is restarting, its model's loading included.
_PATIENCE = 180.0


class EngineActor:
    """One engine replica. Ray restarts the process if it dies; the first call then starts the engine again."""

    def __init__(self, spec: EngineSpec, imports: tuple[str, ...]) -> None:
        import_plugins(imports, Path())
        self._engine = spec.build()
        self._starting: asyncio.Future[None] | None = None

    async def ready(self) -> tuple[EngineInfo, dict[str, Any]]:
        """Start the engine if it is not started; returns its numbers and facts."""
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._engine.start())
        await self._starting
        return describe(self._engine)

    async def encode(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[EncodedPrompt]:
        await self.ready()
        return self._engine.encode(prompts, sampling)

    async def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, keys: Sequence[Place]
    ) -> list[Sample]:
        await self.ready()
        return await self._engine.generate(prompts, sampling, keys)

    async def restart(self) -> None:
        """Close and start an engine that failed while its process lives."""
        await self._engine.close()
        self._starting = None
        await self.ready()

    async def close(self) -> None:
        await self._engine.close()


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
            except EngineError:
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
        except ray.exceptions.RayActorError as dead:
            raise EngineError(
                f"an engine actor died: {first_line(dead)}", remedy="see the worker's log on its node"
            ) from None
        except ray.exceptions.RayTaskError as error:
            raise unwrapped(error) from None


class WorkerActor:
    """One agent worker."""

    def __init__(self, staff: Staff, engines: Mapping[str, Sequence[Any]]) -> None:
        import_plugins(staff.imports, Path())
        clients = {name: [RayClient(actor) for actor in actors] for name, actors in engines.items()}
        self._worker = Worker(staff.policies, clients, staff.limits)

    async def advance(self, jobs: Sequence[Job], turns: Sequence[Turn]) -> Report:
        return await self._worker.advance(jobs, turns)

    async def perform(self, keys: Sequence[str], replica: int) -> list[Performed]:
        return await self._worker.perform(keys, replica)


def unwrapped(error: ray.exceptions.RayTaskError) -> BaseException:
    """The exception that the remote code raised."""
    cause = error.cause
    return cause if isinstance(cause, BaseException) else error


def first_line(error: BaseException) -> str:
    """What an exception says first; its name if it says nothing."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
