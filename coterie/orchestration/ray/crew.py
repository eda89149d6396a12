"""The shards of a training in Ray actors; the driver takes their gradients, and keeps what replaces a lost actor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import ray
import ray.exceptions
from ray.util.placement_group import PlacementGroup, remove_placement_group
from torch import Tensor

from coterie.agents.learning.ppo import Gradient, PPOLearner
from coterie.errors import WorkerLost
from coterie.orchestration.config import RayConfig
from coterie.orchestration.crew import State
from coterie.orchestration.ray.actors import first_line, unwrapped
from coterie.orchestration.ray.cluster import Cluster
from coterie.orchestration.ray.placement import bundle, place, reserve
from coterie.orchestration.ray.shards import ShardActor, flatten, gradient_of, unpacked
from coterie.orchestration.shards import Collected
from coterie.orchestration.training_spec import TrainingSpec

# For an actor's start, and for the first use of its world, which may have to be compiled.
_START_SECONDS = 600.0


class _Call(NamedTuple):
    """What all actors are asked: a method of `ShardActor`, what they share, and what there is for each shard."""

    method: str
    common: tuple[Any, ...] = ()
    items: Sequence[Any] | None = None

    def of(self, shards: range) -> _Call:
        """The call of the actor that holds these shards."""
        return self._replace(items=None if self.items is None else self.items[shards.start : shards.stop])


class RayCrew:
    """Shards in as many actors as there are workers, or shards if those are fewer. See `Crew`.

    What an actor holds follows from its shards' last state and the calls since. The driver keeps both: the state of the
    last checkpoint, the weights of each rollout since, and a few numbers for each agent-step of the last one. So a lost
    actor is replaced by one that does the same again while the others wait.

    Args:
        config: Where, and how many.
        spec: The training.
        imports: Plugins that actors need; paths are absolute.
        on_loss: Told of each actor that is replaced.

    Raises:
        EnvironmentMissing: There is no cluster or no room on it, or a node lacks something.
        ConfigError: The world or the policy cannot be made.
        WorkerLost: Actors died again and again before they were ready.
    """

    def __init__(
        self, config: RayConfig, spec: TrainingSpec, imports: Sequence[str] = (),
        on_loss: Callable[[WorkerLost], None] = lambda lost: None,
    ) -> None:  # fmt: skip
        self._config, self._spec, self._imports, self._on_loss = config, spec, tuple(imports), on_loss
        count = min(config.workers, spec.num_shards)
        edges = [spec.num_shards * worker // count for worker in range(count + 1)]
        self._shards = [range(*edges[worker : worker + 2]) for worker in range(count)]
        self._cluster = Cluster(config.address)
        self._group: PlacementGroup | None = None
        self._actors: list[Any] = []
        self._log: list[_Call] = []
        self._is_warm = False
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        self._cluster.connect()
        self._group = reserve([bundle(self._config.worker_cpus, self._config.worker_gpus)] * len(self._shards))
        self._actors = [self._hire(worker) for worker in range(len(self._shards))]
        told = self._ask(_Call("describe"))
        self.sizes = [size for _, sizes, _ in told for size in sizes]
        self.at_once = sum(at_once for _, _, at_once in told)
        self.learner: PPOLearner = self._spec.make_learner(told[0][0], "cpu")

    def _hire(self, worker: int) -> Any:
        assert self._group is not None
        actor = place(ShardActor, self._group, worker, gpus=self._config.worker_gpus)
        threads = max(int(self._config.worker_cpus), 1)
        return actor.remote(self._spec.pack(), self._imports, list(self._shards[worker]), threads)

    def begin(self) -> None:
        """See `Crew`."""
        self._ask(begin := _Call("begin"))
        self._log = [begin]

    def collect(self, iteration: int, agent_steps: int) -> list[Collected]:
        """See `Crew`."""
        call = _Call("collect", (self._weights(), iteration, agent_steps))
        found = [unpacked(one) for answer in self._ask(call) for one in answer]
        self._is_warm = True
        # What earlier rollouts taught has gone into the weights.
        self._log = [*(one for one in self._log if one.method != "prepare"), call]
        return found

    def prepare(self, normalised: Sequence[Tensor]) -> None:
        """See `Crew`."""
        self._ask(call := _Call("prepare", (self._weights(),), [one.numpy() for one in normalised]))
        self._log.append(call)

    def differentiate(self, rows: Sequence[Tensor], total: Tensor) -> list[Gradient]:
        """See `Crew`."""
        call = _Call("differentiate", (flatten(self.learner.parameters), int(total)), [one.numpy() for one in rows])
        return [gradient_of(found) for answer in self._ask(call) for found in answer]

    def states(self, agent_steps: int) -> list[State]:
        """See `Crew`."""
        found = [_copied(state) for answer in self._ask(_Call("states", (agent_steps,))) for state in answer]
        self._log = [_Call("load", (), found)]
        return found

    def load(self, states: Sequence[State]) -> None:
        """See `Crew`."""
        self._ask(call := _Call("load", (), states))
        self._log = [call]

    def describe(self) -> dict[str, Any]:
        """See `Crew`."""
        nodes = [node for node in ray.nodes() if node["Alive"]]
        return {"kind": "ray", "shards": self._spec.num_shards, "workers": len(self._actors), "nodes": len(nodes)}

    def close(self) -> None:
        """See `Crew`."""
        actors, self._actors, group, self._group = self._actors, [], self._group, None
        try:
            for actor in actors:
                ray.kill(actor)
            if group is not None:
                remove_placement_group(group)
        finally:
            self._cluster.close()

    def _weights(self) -> State:
        return {name: value.numpy().copy() for name, value in self.learner.weights().items()}

    def _ask(self, call: _Call) -> list[Any]:
        """What each actor answers, in order."""
        common = ray.put(call.common)
        asked = [
            actor.perform.remote(call.method, common, call.of(shards).items)
            for actor, shards in zip(self._actors, self._shards, strict=True)
        ]
        return [self._insist(worker, answer, call) for worker, answer in enumerate(asked)]

    def _insist(self, worker: int, answer: Any, call: _Call) -> Any:
        """The answer of an actor, or of one that replaces it."""
        seconds = self._config.deadline if self._is_warm else _START_SECONDS
        for left in reversed(range(self._config.attempts)):
            try:
                return _wait(answer, seconds)
            except WorkerLost as lost:
                if not left:
                    raise
                self._on_loss(lost)
            answer = self._replace(worker, call)
            seconds = _START_SECONDS + self._config.deadline * len(self._log)

    def _replace(self, worker: int, call: _Call) -> Any:
        """Another actor's answer to a call, after it did what this one had done."""
        ray.kill(self._actors[worker])
        actor = self._actors[worker] = self._hire(worker)
        return actor.replay.remote([tuple(one.of(self._shards[worker])) for one in (*self._log, call)])


def _wait(answer: Any, seconds: float) -> Any:
    try:
        return ray.get(answer, timeout=seconds)
    except ray.exceptions.RayTaskError as error:
        raise unwrapped(error) from None
    except ray.exceptions.GetTimeoutError:
        raise WorkerLost(f"a worker did not answer within {seconds:g} s") from None
    except ray.exceptions.RayError as lost:
        raise WorkerLost(f"a worker was lost: {first_line(lost)}") from None


def _copied(state: State) -> State:
    # What Ray gives is kept in its store for as long as it is used.
    return {name: np.array(value) for name, value in state.items()}
