"""The actor that holds shards of a training. All it holds follows from a state and the calls since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coterie.agents.learning.ppo import Gradient
from coterie.agents.learning.threads import single_threaded
from coterie.config.plugins import import_plugins
from coterie.orchestration.crew import LocalCrew, State
from coterie.orchestration.redaction import redacting
from coterie.orchestration.shards import Collected
from coterie.orchestration.training_spec import TrainingSpec, be_exact, find_device
from coterie.types import WorldSpec

_Sent = tuple[NDArray[np.float32], NDArray[np.float32]]
"""A gradient: its parameters' and its facts, with arrays in place of tensors."""
_TENSORS = tuple(field.name for field in fields(Collected) if "Tensor" in str(field.type))


class ShardActor:
    """Some shards, and a copy of the networks, whose weights come with every call that needs them.

    Args:
        spec: A packed `TrainingSpec`.
        imports: Plugins.
        shards: Indices of its shards.
        threads: At most so many work at once.
    """

    def __init__(self, spec: Mapping[str, Any], imports: Sequence[str], shards: Sequence[int], threads: int) -> None:
        self._packed, self._imports, self._shards, self._threads = spec, imports, shards, threads
        self._made: LocalCrew | None = None

    @property
    def _crew(self) -> LocalCrew:
        # Not made by the constructor, whose errors Ray tells as text alone.
        if self._made is None:
            import_plugins(self._imports, Path())
            spec = TrainingSpec.unpack(self._packed)
            be_exact(spec.exact)
            device = find_device(spec.device)
            worlds = [spec.make_world(index, device) for index in self._shards]
            learner = spec.make_learner(worlds[0][0].spec, device)
            if device == "cpu":
                learner.threads.count = self._threads
            self._made = LocalCrew([spec.make_shard(world, learner, first) for world, first in worlds], learner)
        return self._made

    def perform(self, method: str, common: Sequence[Any] = (), items: Sequence[Any] | None = None) -> Any:
        """One of the methods below, with what all actors are told, and then what there is for each shard of this."""
        with redacting(), single_threaded():
            return getattr(self, method)(*common, *(() if items is None else (items,)))

    def replay(self, calls: Sequence[tuple[str, Sequence[Any], Sequence[Any] | None]]) -> Any:
        """Do again what another actor had done before it was lost, and then what is asked, which is the last call."""
        answer = None
        for call in calls:
            answer = self.perform(*call)
        return answer

    def describe(self) -> tuple[WorldSpec, list[int], int]:
        """What policies have to fit, the environments of each shard, and how many shards are stepped at once."""
        return self._crew.shards[0].world.spec, self._crew.sizes, self._crew.at_once

    def begin(self) -> None:
        """See `Crew`; so are all that follow, with the weights before all else."""
        self._crew.begin()

    def collect(self, weights: State, iteration: int, agent_steps: int) -> list[Collected]:
        self._load(weights)
        return [_packed(one) for one in self._crew.collect(iteration, agent_steps)]

    def prepare(self, weights: State, normalised: Sequence[NDArray[np.float32]]) -> None:
        self._load(weights)
        self._crew.prepare([self._there(one) for one in normalised])

    def differentiate(
        self, parameters: NDArray[np.float32], total: int, rows: Sequence[NDArray[np.int64]]
    ) -> list[_Sent]:
        put(parameters, self._crew.learner.parameters)
        count = torch.tensor(total, device=self._crew.learner.device)
        found = self._crew.differentiate([self._there(one) for one in rows], count)
        return [(one.parameters.cpu().numpy(), one.facts.cpu().numpy()) for one in found]

    def states(self, agent_steps: int) -> Sequence[State]:
        return self._crew.states(agent_steps)

    def load(self, states: Sequence[State]) -> None:
        # Ray gives arrays that cannot be written to.
        self._crew.load([{name: np.array(value) for name, value in state.items()} for state in states])

    def _load(self, weights: State) -> None:
        self._crew.learner.load_weights({name: torch.tensor(value) for name, value in weights.items()})

    def _there(self, array: NDArray[Any]) -> Tensor:
        return torch.tensor(array, device=self._crew.learner.device)


def _packed(one: Collected) -> Collected:
    """With arrays, which Ray sends without a copy, in place of tensors."""
    given: dict[str, Any] = {name: getattr(one, name) for name in _TENSORS}
    arrays: dict[str, Any] = {name: None if x is None else x.cpu().numpy() for name, x in given.items()}
    return replace(one, **arrays)


def unpacked(one: Collected) -> Collected:
    """As it was collected."""
    given: dict[str, Any] = {name: getattr(one, name) for name in _TENSORS}
    tensors: dict[str, Any] = {name: None if x is None else torch.tensor(x) for name, x in given.items()}
    return replace(one, **tensors)


def flatten(tensors: Sequence[Tensor]) -> NDArray[np.float32]:
    """Parameters in one array [P]."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).cpu().numpy()


@torch.no_grad()
def put(flat: NDArray[np.float32], tensors: Sequence[Tensor]) -> None:
    """Write an array [P] into parameters."""
    parts = torch.split(torch.tensor(flat), [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def gradient_of(sent: _Sent) -> Gradient:
    """What `ShardActor.differentiate` returns of a shard."""
    parameters, facts = sent
    return Gradient(torch.tensor(parameters), torch.tensor(facts))
