"""Engine actors as the driver sees them: it starts them, brings them weights, and mends them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ray
import ray.exceptions

from coterie.errors import EngineError
from coterie.orchestration.pool import EngineInfo
from coterie.orchestration.ray.actors import first_line, unwrapped
from coterie.orchestration.ray.transfer import Packed, pack
from coterie.types import Weights

_REVIVE_SECONDS = 180.0
# An engine that does not close within this time hangs with its whole process.
_CLOSE_SECONDS = 60.0


class Publication:
    """Weights in a folder of the driver's; other nodes get its files, which are read once for all of them.

    Attributes:
        edition: Its number.
    """

    def __init__(self, weights: Weights, edition: int) -> None:
        self.weights, self.edition = weights, edition
        self._packed: Packed | None = None
        self._lock = threading.Lock()

    def pack(self) -> Packed:
        """The folder's files."""
        with self._lock:
            if self._packed is None:
                self._packed = pack(Path(self.weights.folder))
            return self._packed

    def forget(self) -> None:
        """Let the object store have its room back."""
        self._packed = None


class Replica(NamedTuple):
    """One engine actor.

    Attributes:
        actor: Of the class `EngineActor`.
        name: What errors call it.
        deadline: Seconds for one call.
        attempts: How often a publication is tried.
    """

    actor: Any
    name: str
    deadline: float
    attempts: int

    async def ready(self, seconds: float) -> tuple[EngineInfo, dict[str, Any]]:
        """Wait for the engine, also through a restart of its process.

        Raises:
            EngineError: it died for good, or did not come within so many seconds.
        """
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        described: tuple[EngineInfo, dict[str, Any]] = await self.actor.ready.remote()
                        return described
                    except ray.exceptions.ActorUnavailableError:
                        await asyncio.sleep(0.2)
        except ray.exceptions.RayTaskError as error:
            raise unwrapped(error) from None
        except ray.exceptions.RayActorError as dead:
            raise self._lost(f"an engine actor died: {first_line(dead)}") from None
        except TimeoutError:
            raise self._lost(f"an engine was not ready within {seconds:g} s") from None

    async def restart(self) -> None:
        """Bring it back after it failed or hung; it then holds nothing that was published."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.actor.close.remote()
        except ray.exceptions.RayActorError:
            pass  # Ray starts another process already.
        except (TimeoutError, ray.exceptions.RayTaskError):
            ray.kill(self.actor, no_restart=False)
        await self.ready(_REVIVE_SECONDS)

    async def bring(self, publications: Mapping[str, Publication], tell: Callable[[EngineError], None]) -> None:
        """Have the engine hold these, by adapter; what it holds already is not sent again.

        Args:
            publications: The latest of each adapter, or of the model itself.
            tell: Told of each time that the engine was lost, and is brought back.

        Raises:
            EngineError: it could not take them, or was lost again and again meanwhile.
        """
        for left in reversed(range(self.attempts if publications else 0)):
            try:
                async with asyncio.timeout(self.deadline):
                    return await self._bring(publications)
            except TimeoutError:
                lost = self._lost(f"an engine did not take its weights within {self.deadline:g} s")
            except ray.exceptions.RayTaskError as error:
                raise unwrapped(error) from None
            except ray.exceptions.RayError as gone:
                lost = self._lost(f"an engine actor was lost while weights were published: {first_line(gone)}")
            if not left:
                raise lost
            tell(lost)
            await self.restart()

    async def _bring(self, publications: Mapping[str, Publication]) -> None:
        held = await self.actor.held.remote()
        is_near = await self.actor.locate.remote() == ray.get_runtime_context().get_node_id()
        for adapter, publication in sorted(publications.items()):
            if held.get(adapter) != publication.edition:
                packed = None if is_near else await asyncio.to_thread(publication.pack)
                await self.actor.publish.remote(publication.weights, publication.edition, packed)

    def _lost(self, what: str) -> EngineError:
        return EngineError(what, where=self.name, remedy="see the log of its actor on its node, and try again")
