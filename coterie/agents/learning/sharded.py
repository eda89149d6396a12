"""A learner whose model is spread over several processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coterie.agents.learning import bases
from coterie.agents.learning.examples import Example
from coterie.agents.learning.llm import LanguageLearner
from coterie.agents.learning.llm_settings import LLMSettings
from coterie.agents.learning.ranks import ProcessGroup
from coterie.agents.learning.signals import Roles
from coterie.errors import CoterieError, LearningError, WorkerLost
from coterie.types import SignalRequest

_PATIENCE = 86_400.0
"""Seconds that one call may take; what dies is seen at once."""
_SKEW = 1800.0
"""Seconds that processes wait for each other, which are at most one micro-batch apart."""
_STOPS = (signal.SIGINT, signal.SIGTERM)


def make_learner(
    model: str, policies: Sequence[str], settings: LLMSettings, device: str, seed: int
) -> LanguageLearner | ShardedLearner:
    """A learner in this process, or one in as many as `settings.ranks` says; see `LanguageLearner`."""
    ranks = settings.num_ranks(policies)
    if ranks == 1:
        return LanguageLearner(model, policies, settings, device, seed)
    return ShardedLearner(model, policies, settings, device, seed, ranks)


class ShardedLearner:
    """The same as `LanguageLearner`, by several processes that hold a part of weights, gradients and moments each.

    Micro-batches are dealt out to them. Their number changes results only by rounding. On GPUs each has one of its own.

    Args:
        model: As for `LanguageLearner`; likewise what follows.
        policies: See there.
        settings: See there.
        device: See there.
        seed: See there.
        ranks: How many processes.

    Raises:
        LearningError: There are not as many GPUs; or as there.
        EnvironmentMissing: As there.
    """

    def __init__(
        self, model: str, policies: Sequence[str], settings: LLMSettings, device: str, seed: int, ranks: int
    ) -> None:
        kind = bases.pick_device(device).type
        if kind == "cuda" and torch.cuda.device_count() < ranks:
            raise LearningError(
                f"{ranks} ranks need as many GPUs, and there are {torch.cuda.device_count()}", where="learning.ranks",
                remedy="set fewer",
            )  # fmt: skip
        self._meeting = tempfile.mkdtemp(prefix="coterie-ranks-")
        weakref.finalize(self, shutil.rmtree, self._meeting, ignore_errors=True)
        context = multiprocessing.get_context("spawn")
        pipes = [context.Pipe() for _ in range(ranks)]
        threads = max(torch.get_num_threads() // ranks, 1)
        self._pipes: list[Connection] = [ours for ours, _ in pipes]
        self._processes = [
            context.Process(
                target=_work, daemon=True, name=f"learner-{rank}",
                args=(theirs, rank, ranks, f"{self._meeting}/store", kind, threads,
                      (model, tuple(policies), settings, seed)),
            )
            for rank, (_, theirs) in enumerate(pipes)
        ]  # fmt: skip
        # What is told to stop is the run; until they have left its group, these processes inherit that they wait.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        for process in self._processes:
            process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for _, theirs in pipes:
            theirs.close()
        self._collect()

    def _call(self, method: str, *arguments: Any, **named: Any) -> Any:
        if not self._pipes:
            raise LearningError("this learner was closed", remedy="make another, and load its checkpoint")
        for pipe in self._pipes:
            with suppress(OSError):  # of one that died, which `_collect` says
                pipe.send((method, arguments, named))
        return self._collect()

    def _collect(self) -> Any:
        """What the first process gives, once all have answered. After an error all are ended."""
        waiting, first = list(self._pipes), None
        while waiting:
            ready = wait(waiting, _PATIENCE)
            if not ready:
                self._end(WorkerLost(f"processes of a learner did not answer for {_PATIENCE:.0f} s",
                                     remedy="resume from the last checkpoint"))  # fmt: skip
            for pipe in [pipe for pipe in waiting if pipe in ready]:
                waiting.remove(pipe)
                try:
                    answer, error = pipe.recv()
                except (EOFError, OSError):
                    error = WorkerLost(f"process {self._pipes.index(pipe)} of a learner died",
                                       remedy="resume from the last checkpoint")  # fmt: skip
                if error is not None:
                    self._end(error)
                if pipe is self._pipes[0]:
                    first = answer
        return first

    def _end(self, error: Exception) -> NoReturn:
        self.close()
        raise error

    def logprobs(self, policy: str, examples: Sequence[Example]) -> list[NDArray[np.float32]]:
        return self._call("logprobs", policy, examples)  # type: ignore[no-any-return]

    def reference_logprobs(self, examples: Sequence[Example]) -> list[NDArray[np.float32]]:
        return self._call("reference_logprobs", examples)  # type: ignore[no-any-return]

    def count_layers(self) -> int:
        return self._call("count_layers")  # type: ignore[no-any-return]

    def score(
        self, policy: str, examples: Sequence[Example], request: SignalRequest, roles: Roles | None = None
    ) -> list[dict[str, NDArray[np.floating[Any]]]]:
        return self._call("score", policy, examples, request, roles)  # type: ignore[no-any-return]

    def assign_roles(self, policy: str, examples: Sequence[Example], request: SignalRequest) -> Roles:
        return self._call("assign_roles", policy, examples, request)  # type: ignore[no-any-return]

    def influence(
        self, policy: str, examples: Sequence[Example], labels: Sequence[NDArray[np.int64]], layers: int = 5
    ) -> list[NDArray[np.float32]]:
        return self._call("influence", policy, examples, labels, layers)  # type: ignore[no-any-return]

    def update(self, policy: str, examples: Sequence[Example], *, iteration: int) -> dict[str, float]:
        return self._call("update", policy, examples, iteration=iteration)  # type: ignore[no-any-return]

    def weights(self, policy: str) -> dict[str, Tensor]:
        return _tensors(self._call("weights", policy))

    def optimiser_state(self, policy: str) -> dict[str, Tensor]:
        return _tensors(self._call("optimiser_state", policy))

    def load(self, policy: str, weights: Mapping[str, Tensor], optimiser: Mapping[str, Tensor]) -> None:
        self._call("load", policy, _arrays(weights), _arrays(optimiser))

    def export(self, policy: str, folder: Path) -> None:
        self._call("export", policy, folder)

    def close(self) -> None:
        """End the processes; nothing more can be asked."""
        for pipe in self._pipes:
            pipe.close()
        self._pipes = []
        for process in self._processes:
            process.terminate()
            process.join()


# Tensors would go through shared memory, of which there may be little; arrays go through the pipe.


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def _leave_group() -> None:
    """From here on Ctrl-C in a terminal, or a signal to its group, reaches the run alone, which says what to do."""
    os.setsid()
    for stop in _STOPS:
        # To ignore a signal is to forget one that waits: it came during the start.
        signal.signal(stop, signal.SIG_IGN)
        signal.signal(stop, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)


def _work(
    pipe: Connection, rank: int, size: int, store: str, kind: str, threads: int,
    made_of: tuple[str, Sequence[str], LLMSettings, int],
) -> None:  # fmt: skip
    """One process: makes its part of the learner, and does what it is asked until the pipe is closed."""
    _leave_group()
    torch.set_num_threads(threads)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    device = f"cuda:{rank}" if kind == "cuda" else kind
    if kind == "cuda":
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group(
        "nccl" if kind == "cuda" else "gloo", init_method=f"file://{store}", rank=rank, world_size=size,
        timeout=timedelta(seconds=_SKEW),
    )  # fmt: skip
    model, policies, settings, seed = made_of
    learner: LanguageLearner | None = None
    while True:
        try:
            if learner is None:
                learner = LanguageLearner(model, policies, settings, device, seed, ProcessGroup())
                pipe.send((None, None))
            method, arguments, named = pipe.recv()
            if method == "load":
                arguments = (arguments[0], *map(_tensors, arguments[1:]))
            found = getattr(learner, method)(*arguments, **named)
            if method in ("weights", "optimiser_state"):
                found = _arrays(found)
            pipe.send((found if rank == 0 else None, None))
        except EOFError:
            return
        except CoterieError as error:
            pipe.send((None, error))
            return
