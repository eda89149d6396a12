"""Learners in actors of their own. The driver keeps what replaces a lost one: the state after its last update."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
import ray.exceptions
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

from coterie.agents.learning.examples import Example
from coterie.agents.learning.exports import replaced
from coterie.agents.learning.signals import Roles
from coterie.config.plugins import import_plugins
from coterie.errors import WorkerLost
from coterie.orchestration.learners import Learner, LearnerSpec
from coterie.orchestration.ray.actors import first_line, unwrapped
from coterie.orchestration.ray.transfer import Packed, pack, unpack
from coterie.orchestration.ray.watchdog import Watched
from coterie.orchestration.redaction import redacting
from coterie.types import SignalRequest

T = TypeVar("T")
Tensors = NDArray[np.uint8]
"""Named tensors of any type as the bytes of a safetensors file, which Ray sends without a copy."""
State = tuple[Tensors, Tensors]
"""A policy's weights, and what its optimiser remembers."""

# For an actor's start: its process, its imports and its model.
_START_SECONDS = 600.0


class LearnerActor(Watched):
    """One learner; see `LanguageLearner`.

    Args:
        spec: A packed `LearnerSpec`.
        imports: Plugins; paths are absolute.
        threads: Of torch, on a CPU.
    """

    def __init__(self, spec: Mapping[str, Any], imports: Sequence[str], threads: int) -> None:
        self._packed, self._imports, self._threads = spec, imports, threads
        self._made: Learner | None = None

    @property
    def _learner(self) -> Learner:
        # Not made by the constructor, whose errors Ray tells as text alone.
        if self._made is None:
            import_plugins(self._imports, Path())
            self._made = LearnerSpec.unpack(self._packed).build()
        return self._made

    def perform(self, method: str, *arguments: Any) -> Any:
        """One of the methods below."""
        with redacting(), _threads(self._threads):
            return getattr(self, method)(*arguments)

    def locate(self) -> str:
        """Make the learner if there is none; the id of its node."""
        assert self._learner
        return str(ray.get_runtime_context().get_node_id())

    def update(self, policy: str, examples: Sequence[Example], iteration: int) -> tuple[dict[str, float], State]:
        return self._learner.update(policy, examples, iteration=iteration), self.state(policy)

    def state(self, policy: str) -> State:
        return _bytes(self._learner.weights(policy)), _bytes(self._learner.optimiser_state(policy))

    def load(self, policy: str, weights: Tensors, optimiser: Tensors) -> None:
        self._learner.load(policy, _tensors(weights), _tensors(optimiser))

    def logprobs(self, policy: str, examples: Sequence[Example]) -> list[NDArray[np.float32]]:
        return self._learner.logprobs(policy, examples)

    def reference_logprobs(self, examples: Sequence[Example]) -> list[NDArray[np.float32]]:
        return self._learner.reference_logprobs(examples)

    def count_layers(self) -> int:
        return self._learner.count_layers()

    def score(
        self, policy: str, examples: Sequence[Example], request: SignalRequest, roles: Roles | None
    ) -> list[dict[str, NDArray[np.floating[Any]]]]:
        return self._learner.score(policy, examples, request, roles)

    def assign_roles(self, policy: str, examples: Sequence[Example], request: SignalRequest) -> Roles:
        return self._learner.assign_roles(policy, examples, request)

    def influence(
        self, policy: str, examples: Sequence[Example], labels: Sequence[NDArray[np.int64]], layers: int
    ) -> list[NDArray[np.float32]]:
        return self._learner.influence(policy, examples, labels, layers)

    def export(self, policy: str, folder: str) -> None:
        self._learner.export(policy, Path(folder))

    def send(self, policy: str) -> Packed:
        """What is exported, for another node."""
        with tempfile.TemporaryDirectory(prefix="coterie-export-") as scratch:
            self._learner.export(policy, Path(scratch, "out"))
            return pack(Path(scratch, "out"))


class RayLearner:
    """A learner in an actor, with the interface of one in this process; an actor that is lost is replaced.

    Args:
        hire: Makes an actor.
        name: What errors call it.
        deadline: Seconds for one call.
        attempts: How often in a row an actor is replaced.
        on_loss: Told of each that is lost.
    """

    def __init__(
        self, hire: Callable[[], Any], name: str, deadline: float, attempts: int, on_loss: Callable[[WorkerLost], None]
    ) -> None:
        self._hire, self._name, self._deadline, self._attempts, self._on_loss = hire, name, deadline, attempts, on_loss
        self._states: dict[str, tuple[Any, Any]] = {}
        self._node = ""
        self._patience = _START_SECONDS
        self.actor = hire()

    def start(self) -> None:
        """Wait until it is made.

        Raises:
            EnvironmentMissing: Its node lacks something.
            WorkerLost: Its actor died again and again.
        """
        self._node = self._ask("locate")
        self._patience = self._deadline

    def update(self, policy: str, examples: Sequence[Example], *, iteration: int) -> dict[str, float]:
        """See `LanguageLearner`."""
        metrics, state = self._ask("update", policy, list(examples), iteration)
        self._keep(policy, state)
        found: dict[str, float] = metrics
        return found

    def weights(self, policy: str) -> dict[str, Tensor]:
        """See `LanguageLearner`."""
        return _tensors(ray.get(self._state(policy)[0]))

    def optimiser_state(self, policy: str) -> dict[str, Tensor]:
        """See `LanguageLearner`."""
        return _tensors(ray.get(self._state(policy)[1]))

    def load(self, policy: str, weights: Mapping[str, Tensor], optimiser: Mapping[str, Tensor]) -> None:
        """See `LanguageLearner`."""
        state = _bytes(weights), _bytes(optimiser)
        self._ask("load", policy, *state)
        self._keep(policy, state)

    def logprobs(self, policy: str, examples: Sequence[Example]) -> list[NDArray[np.float32]]:
        """See `LanguageLearner`."""
        return [np.array(one) for one in self._ask("logprobs", policy, list(examples))]

    def reference_logprobs(self, examples: Sequence[Example]) -> list[NDArray[np.float32]]:
        """See `LanguageLearner`."""
        return [np.array(one) for one in self._ask("reference_logprobs", list(examples))]

    def count_layers(self) -> int:
        """See `LanguageLearner`."""
        return int(self._ask("count_layers"))

    def score(
        self, policy: str, examples: Sequence[Example], request: SignalRequest, roles: Roles | None = None
    ) -> list[dict[str, NDArray[np.floating[Any]]]]:
        """See `LanguageLearner`."""
        found = self._ask("score", policy, list(examples), request, roles)
        return [{name: np.array(values) for name, values in one.items()} for one in found]

    def assign_roles(self, policy: str, examples: Sequence[Example], request: SignalRequest) -> Roles:
        """See `LanguageLearner`."""
        roles: Roles = self._ask("assign_roles", policy, list(examples), request)
        return roles

    def influence(
        self, policy: str, examples: Sequence[Example], labels: Sequence[NDArray[np.int64]], layers: int = 5
    ) -> list[NDArray[np.float32]]:
        """See `LanguageLearner`."""
        found = self._ask("influence", policy, list(examples), list(labels), layers)
        return [np.array(one) for one in found]

    def export(self, policy: str, folder: Path) -> None:
        """See `LanguageLearner`; from another node come the files' bytes."""
        self._insist(lambda: self._export(policy, folder))

    def _export(self, policy: str, folder: Path) -> None:
        if self._node == ray.get_runtime_context().get_node_id():
            self._wait(self.actor.perform.remote("export", policy, str(folder)), self._deadline)
            return
        packed = self._wait(self.actor.perform.remote("send", policy), self._deadline)
        with replaced(folder) as place:
            unpack(packed, place)

    def close(self) -> None:
        """End its actor, and with that the processes that the learner has there."""
        ray.kill(self.actor)

    def _state(self, policy: str) -> tuple[Any, Any]:
        if policy not in self._states:
            self._keep(policy, self._ask("state", policy))
        return self._states[policy]

    def _keep(self, policy: str, state: State) -> None:
        # Put here, they are the driver's own: neither the actor's end nor its node's takes them along.
        self._states[policy] = ray.put(state[0]), ray.put(state[1])

    def _ask(self, method: str, *arguments: Any) -> Any:
        return self._insist(lambda: self._wait(self.actor.perform.remote(method, *arguments), self._patience))

    def _insist(self, work: Callable[[], T]) -> T:
        """What comes of some work with the actor, or with one that replaces it."""
        for left in reversed(range(self._attempts)):
            try:
                return work()
            except WorkerLost as lost:
                if not left:
                    raise
                self._on_loss(lost)
                self._replace()
        raise AssertionError("there is at least one attempt")

    def _replace(self) -> None:
        """Another actor, with what this one had learnt; it is waited for by whoever asks next."""
        lost, hired = self.actor, self._hire()  # After the run's end nobody is hired, and a kill would start Ray anew.
        ray.kill(lost)
        self.actor, self._node, self._patience = hired, "", _START_SECONDS
        loads = [self.actor.perform.remote("load", policy, *state) for policy, state in self._states.items()]
        try:
            self._node = self._wait(self.actor.perform.remote("locate"), _START_SECONDS)
            for done in loads:
                self._wait(done, _START_SECONDS)
        except WorkerLost:
            return  # So is whoever asks next.
        self._patience = self._deadline

    def _wait(self, answer: Any, seconds: float) -> Any:
        try:
            return ray.get(answer, timeout=seconds)
        except ray.exceptions.RayTaskError as error:
            raise unwrapped(error) from None
        except ray.exceptions.GetTimeoutError:
            raise WorkerLost(f"a learner did not answer within {seconds:g} s", where=self._name,
                             remedy="if it is only slow, raise executor.learner_deadline") from None  # fmt: skip
        except ray.exceptions.RayError as lost:
            raise WorkerLost(f"a learner was lost: {first_line(lost)}", where=self._name) from None


def count_threads(cpus: float) -> int:
    """Of a learner: as many as it has CPUs, or, where none are reserved, as this process has."""
    return int(cpus) or torch.get_num_threads()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """In here each operation of torch has so many: results on a CPU depend on how many, in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _bytes(tensors: Mapping[str, Tensor]) -> Tensors:
    ours = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return np.frombuffer(save(ours), np.uint8)


def _tensors(content: Tensors) -> dict[str, Tensor]:
    return load(content.tobytes())
