"""Actors that stop answering: they are named, and their processes ended, so that whoever waits for them learns of it.

An actor answers a ping in a thread of its own, so one that is busy is not taken for one that hangs: what is found is a
process that is stopped, swapped out or cut off. What hangs inside an actor is found by the deadlines of its calls.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
import ray.exceptions

from coterie.errors import CoterieError

GROUP = "watch"
# Patience is counted in looks, not in seconds: to a driver that was stopped itself, all others would seem to hang.
_LOOKS = 6
_START_SECONDS = 600.0


def whereabouts() -> str:
    """The host of this process, for errors and logs."""
    return f"{platform.node()} ({ray.util.get_node_ip_address()}), process {os.getpid()}"


class Watched:
    """What every actor that is watched inherits."""

    @ray.method(concurrency_group=GROUP)  # type: ignore[untyped-decorator]
    def ping(self) -> str:
        """Where it is."""
        return whereabouts()


@dataclass(slots=True)
class _Patient:
    """An actor under watch.

    Attributes:
        restarts: Whether Ray starts another process for it.
        left: How many further looks it has to answer.
        host: Where it answered last.
    """

    actor: Any
    name: str
    kind: type[CoterieError]
    restarts: bool
    left: int
    ping: Any = None
    host: str = ""


class Watchdog:
    """Looks after actors in a thread of its own, from the first `watch` to `close`.

    Args:
        seconds: An actor that answers no ping for so long is named and its process killed.
        tell: Told of each, in that thread.
    """

    def __init__(self, seconds: float, tell: Callable[[CoterieError], None]) -> None:
        self._seconds, self._tell = seconds, tell
        self._patients: dict[Any, _Patient] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, actor: Any, name: str, kind: type[CoterieError], *, restarts: bool = False) -> None:
        """Look after an actor that was just made; it has ten minutes for its start.

        Args:
            actor: Of a `Watched` class.
            name: What errors call it.
            kind: Of the error.
            restarts: Whether Ray restarts it.
        """
        with self._lock:
            self._patients[actor] = _Patient(actor, name, kind, restarts, self._start)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="coterie-watchdog", daemon=True)
                self._thread.start()

    def forget(self, actor: Any) -> None:
        """Look after it no longer."""
        with self._lock:
            self._patients.pop(actor, None)

    def close(self) -> None:
        """Look after nobody any more."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def _start(self) -> int:
        return max(int(_START_SECONDS / self._seconds), 1) * _LOOKS

    def _run(self) -> None:
        while not self._closing.wait(self._seconds / _LOOKS):
            with self._lock:
                patients = list(self._patients.values())
            for patient in patients:
                self._look(patient)

    def _look(self, patient: _Patient) -> None:
        try:
            patient.left -= 1
            if patient.ping is not None and ray.wait([patient.ping], timeout=0)[0]:
                patient.host, patient.left, patient.ping = ray.get(patient.ping), _LOOKS, None
            if patient.ping is None:
                patient.ping = patient.actor.ping.remote()
        except ray.exceptions.RayError:
            # Dead, and not hung: whoever calls it sees that.
            self._lose(patient)
        if patient.left <= 0:
            self._tell(
                patient.kind(
                    f"an actor did not answer for {self._seconds:g} s, and its process was ended",
                    where=f"{patient.name} on {patient.host or 'a node where it never answered'}",
                    remedy="if its host is only slow, raise executor.heartbeat",
                )
            )
            ray.kill(patient.actor, no_restart=not patient.restarts)
            self._lose(patient)

    def _lose(self, patient: _Patient) -> None:
        """Its process has ended."""
        patient.ping, patient.left = None, self._start
        if not patient.restarts:
            self.forget(patient.actor)
