"""Grading in processes of its own: what an answer makes a library do ends with a deadline.

A pool calls one function in child processes. A child that hangs, crashes or takes too much memory is killed and
replaced, and the call has no result. Gold answers go from the grader to its children over a private pipe, and nowhere
else. Needs POSIX signals.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
from functools import cache
from multiprocessing.connection import Connection, Pipe
from typing import Any

from coterie.errors import EnvironmentMissing, GradingTimeout

CPU_SECONDS = 2.0
WALL_SECONDS = 60.0
_START_SECONDS = 120.0
_MEMORY = 2 << 30
_LOG = logging.getLogger(__name__)


class GradingPool:
    """Calls `function` in child processes; starts none before the first call. Usable from any thread.

    The deadline counts CPU time of the child, so that a busy machine changes no verdict; a limit of wall time stands
    behind it.

    Args:
        function: `module:name` of a function of JSON values that gives a JSON value.
        size: The largest number of children; one more is started whenever all others are busy.
        cpu_seconds: CPU time for one call.
        wall_seconds: Wall time for one call.
    """

    def __init__(
        self, function: str, *, size: int = 2, cpu_seconds: float = CPU_SECONDS, wall_seconds: float = WALL_SECONDS
    ) -> None:
        self.function, self._cpu_seconds, self._wall_seconds = function, cpu_seconds, wall_seconds
        self._slots: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for _ in range(size):
            self._slots.put(None)
        self.num_killed = 0
        """Calls without a result because the child had to be killed, or died."""
        atexit.register(self.close)

    def call(self, *arguments: Any) -> Any:
        """The function's result; None if it raised.

        Raises:
            EnvironmentMissing: no child could be started.
            GradingTimeout: the child had to be killed, or died.
        """
        child = self._slots.get()
        try:
            child = child or _Child(self.function, self._cpu_seconds)
            child.await_start()
            return child.call(arguments, self._wall_seconds)
        except BaseException as trouble:
            # Whatever stopped the call, its answer may still come: nobody may take it for that of the next one.
            if child is not None:
                child.kill()
            child = None
            if not isinstance(trouble, _Lost):
                raise
            self._count()
            child = _Child(self.function, self._cpu_seconds)  # it starts while nobody waits for it
            raise GradingTimeout(f"an answer could not be graded: {trouble}", where=self.function) from None
        finally:
            self._slots.put(child)

    def _count(self) -> None:
        self.num_killed += 1
        if self.num_killed == 1:
            _LOG.warning("grading an answer took too long or too much memory; it counts as wrong")

    def close(self) -> None:
        """Kill all idle children; a later call starts new ones."""
        idle: list[_Child | None] = []
        with contextlib.suppress(queue.Empty):
            while True:
                idle.append(self._slots.get_nowait())
        for child in idle:
            if child is not None:
                child.kill()
            self._slots.put(None)


@cache
def shared_pool(function: str) -> GradingPool:
    """The pool of this process for a function."""
    return GradingPool(function)


class _Lost(Exception):
    """The child is gone or has to go."""


class _Child:
    """One child process and the pipe to it."""

    def __init__(self, function: str, cpu_seconds: float) -> None:
        self._pipe, theirs = Pipe()
        with theirs:
            # No group of ours: the first Ctrl-C of a run lets it end in order, and grading goes on until then.
            self._process = subprocess.Popen(  # noqa: S603 - this module
                [sys.executable, "-m", __name__, str(theirs.fileno()), function, str(cpu_seconds)],
                pass_fds=[theirs.fileno()], start_new_session=True, env=_environment(),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        self._function, self._is_ready = function, False

    def await_start(self) -> None:
        """Raise EnvironmentMissing, and end the process, if it has not come up."""
        if self._is_ready:
            return
        try:
            trouble = self._receive(_START_SECONDS)
        except _Lost as lost:
            trouble = str(lost)
        if trouble:
            self.kill()
            raise EnvironmentMissing(
                f"the process that grades answers did not start: {trouble}", where=self._function,
                remedy="install Coterie's dependencies in this Python, or free some memory",
            )  # fmt: skip
        self._is_ready = True

    def call(self, arguments: tuple[Any, ...], seconds: float) -> Any:
        try:
            self._pipe.send_bytes(json.dumps(arguments).encode())
        except OSError as cause:
            raise _Lost("it does not read") from cause
        return self._receive(seconds)

    def kill(self) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.wait()

    def _receive(self, seconds: float) -> Any:
        try:
            if not self._pipe.poll(seconds):
                raise _Lost(f"no word within {seconds:g} s")
            return json.loads(self._pipe.recv_bytes())
        except (EOFError, OSError) as cause:
            raise _Lost("it died") from cause


def _environment() -> dict[str, str]:
    """What the child may know: where its modules are, and no secret."""
    return {
        "PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "random"),
    }  # fmt: skip


def _serve(descriptor: int, function: str, cpu_seconds: float) -> None:
    """The child: call `function` with what comes over the pipe, until it ends."""
    with Connection(descriptor) as pipe:
        module, _, name = function.partition(":")
        try:
            call = getattr(importlib.import_module(module), name)
            _limit_memory()
        except Exception as trouble:  # told to the parent, which names it
            pipe.send_bytes(json.dumps(f"{type(trouble).__name__}: {trouble}").encode())
            return
        pipe.send_bytes(json.dumps("").encode())
        with contextlib.suppress(EOFError, OSError):
            while True:
                arguments = json.loads(pipe.recv_bytes())
                signal.setitimer(signal.ITIMER_PROF, cpu_seconds)  # its signal ends the process, even within C code
                try:
                    result = call(*arguments)
                except Exception:  # libraries raise anything over text they did not expect
                    result = None
                signal.setitimer(signal.ITIMER_PROF, 0)
                pipe.send_bytes(json.dumps(result).encode())


def _limit_memory() -> None:
    import resource

    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


if __name__ == "__main__":
    _serve(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
