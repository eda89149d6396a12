"""The actors: one holds an engine replica, one runs episodes. Neither holds anything that cannot be rebuilt."""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

from coterie.agents.engines.base import Engine
from coterie.config.plugins import import_plugins
from coterie.errors import CoterieError, EngineError
from coterie.orchestration.executor import Staff
from coterie.orchestration.jobs import Performed, Report, Work
from coterie.orchestration.pool import EngineInfo, EngineSpec, PolicySpec, describe, group_decoder, publishable
from coterie.orchestration.ray.transfer import Packed, unpack
from coterie.orchestration.ray.watchdog import Watched, whereabouts
from coterie.orchestration.redaction import redacting
from coterie.orchestration.worker import Worker
from coterie.types import EncodedPrompt, Place, Prompt, Sample, Sampling, Sight, Turn, Weights

# Seconds to wait for an engine actor that Ray is restarting, its model's loading included.
_PATIENCE = 180.0

# No publication's number.
_UNFINISHED = 0

Editions = Mapping[str, int]
"""What an engine holds: by adapter (empty: the model itself), the number of the publication that brought it."""


class EngineActor(Watched):
    """One engine replica. Ray restarts the process if it dies; the first call then starts the engine again.

    Whoever asks says which publications it is to answer with. An engine that was started again has none until the
    driver brings them, and refuses.

    Args:
        spec: A packed `EngineSpec`.
        imports: As `Staff.imports`.
        deadline: Seconds for one call.
    """

    def __init__(self, spec: Mapping[str, Any], imports: tuple[str, ...], deadline: float) -> None:
        self._spec, self._imports, self._deadline = spec, imports, deadline
        self._engine: Engine | None = None
        self._starting: asyncio.Future[Engine] | None = None
        self._held: dict[str, int] = {}

    async def locate(self) -> str:
        """The id of its node."""
        return str(ray.get_runtime_context().get_node_id())

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
        engine = self._engine
        await engine.start()
        return engine

    async def publish(self, weights: Weights, edition: int, packed: Packed | None) -> None:
        """Generate with these from now on; `packed` is their folder, if that is on another node."""
        with redacting():
            try:
                engine = publishable(await self._started())
                self._held[weights.adapter] = _UNFINISHED
                if packed is None:
                    await engine.publish(weights)
                else:
                    with tempfile.TemporaryDirectory(prefix="coterie-weights-") as folder:
                        await asyncio.to_thread(unpack, packed, Path(folder))
                        await engine.publish(replace(weights, folder=folder))
            except CoterieError as error:
                where = f"{self._spec['id']} on {whereabouts()}: {error.where}"
                raise type(error)(error.what, where=where, remedy=error.remedy) from None
            self._held[weights.adapter] = edition

    async def held(self) -> Editions:
        """What was published since it was started."""
        return self._held

    async def encode(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[EncodedPrompt]:
        with redacting():
            return (await self._started()).encode(prompts, sampling)

    async def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, keys: Sequence[Place], editions: Editions
    ) -> list[Sample]:
        with redacting():
            return await (await self._holding(editions)).generate(prompts, sampling, keys)

    async def generate_together(
        self, groups: Sequence[Sequence[EncodedPrompt]], sampling: Sampling, keys: Sequence[Sequence[Place]],
        sight: Sight, editions: Editions,
    ) -> list[Sample]:  # fmt: skip
        with redacting():
            engine = group_decoder(await self._holding(editions))
            return await engine.generate_together(groups, sampling, keys, sight)

    async def _holding(self, editions: Editions) -> Engine:
        if self._held != editions:
            raise EngineError(
                "an engine was started again and has not the weights that were published",
                where=f"{self._spec['id']} on {whereabouts()}", remedy="none is needed: they are published again",
            )  # fmt: skip
        return await self._started()

    async def close(self) -> None:
        """Close the engine; the next call starts it again, and it holds nothing that was published."""
        with redacting():
            engine, self._starting = self._engine, None
            if self._held:
                # It would look for the folders, which are gone.
                self._engine, self._held = None, {}
            if engine is not None:
                await engine.close()


class _EngineGone(EngineError):
    """The engine's process is not there; Ray may be starting another."""


class RayClient:
    """An engine actor as a worker calls it. `editions`: what it is to answer with."""

    def __init__(self, actor: Any, editions: Editions) -> None:
        self._actor, self.editions = actor, editions

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
        samples: list[Sample] = await self._call("generate", prompts, sampling, keys, self.editions)
        return samples

    async def generate_together(
        self, groups: Sequence[Sequence[EncodedPrompt]], sampling: Sampling, keys: Sequence[Sequence[Place]],
        sight: Sight,
    ) -> list[Sample]:  # fmt: skip
        samples: list[Sample] = await self._call("generate_together", groups, sampling, keys, sight, self.editions)
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


class WorkerActor(Watched):
    """One agent worker.

    Args:
        staff: Without engines.
        engines: Their actors by id, and what they hold.
        deadline: Seconds an engine may take for one call.
    """

    def __init__(self, staff: Staff, engines: Mapping[str, tuple[Sequence[Any], Editions]], deadline: float) -> None:
        import_plugins(staff.imports, Path())
        self._clients = {
            name: [RayClient(actor, editions) for actor in actors] for name, (actors, editions) in engines.items()
        }
        self._worker = Worker(staff.policies, self._clients, staff.limits, deadline)

    async def adopt(self, policies: Mapping[str, PolicySpec], editions: Mapping[str, Editions]) -> None:
        """Ask by these policies from now on, of engines that hold this."""
        self._worker.adopt(policies)
        for name, clients in self._clients.items():
            for client in clients:
                client.editions = editions[name]

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
    """What an exception of Ray's says first, and the process and host that it is about; its name if it says nothing."""
    said = str(error).strip()
    first = said.splitlines()[0] if said else type(error).__name__
    told = dict(re.findall(r"^\s*(pid|ip): (\S+)$", said, re.MULTILINE))
    return f"{first} (process {told['pid']} on {told['ip']})" if len(told) == 2 else first
