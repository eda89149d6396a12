"""Who steps a world and differentiates: its shards, here or in other processes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray
from torch import Tensor

from coterie.agents.learning.ppo import Gradient, PPOLearner
from coterie.orchestration.shards import Collected, Shard

State = Mapping[str, NDArray[Any]]


class Crew(Protocol):
    """The shards of a world. Lists have one item for each, in order, and do not depend on where these are.

    Attributes:
        learner: Whose weights act and are differentiated, as they are when a call is made.
        sizes: Environments of each shard.
        at_once: How many shards are stepped at the same time.
    """

    @property
    def learner(self) -> PPOLearner: ...

    @property
    def sizes(self) -> Sequence[int]: ...

    @property
    def at_once(self) -> int: ...

    def begin(self) -> None:
        """Reset all environments."""
        ...

    def collect(self, iteration: int, agent_steps: int) -> Sequence[Collected]:
        """See `Shard`."""
        ...

    def prepare(self, normalised: Sequence[Tensor]) -> None:
        """See `Shard`."""
        ...

    def differentiate(self, rows: Sequence[Tensor], total: Tensor) -> Sequence[Gradient]:
        """See `Shard`."""
        ...

    def states(self, agent_steps: int) -> Sequence[State]:
        """See `Shard.state_dict`."""
        ...

    def load(self, states: Sequence[State]) -> None:
        """Put them back.

        Raises:
            ResumeError: They are of another world.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Where it works, for the record."""
        ...

    def close(self) -> None:
        """Let worlds and processes go; safe to call twice."""
        ...


class LocalCrew:
    """All shards in this process: each has a thread, or, where there is one alone, its parts have.

    Args:
        shards: In order, all with this learner.
        learner: See `Crew`.
    """

    def __init__(self, shards: Sequence[Shard], learner: PPOLearner) -> None:
        self.shards, self.learner = tuple(shards), learner
        self.sizes = [shard.world.num_envs for shard in shards]
        self.at_once = learner.threads.at_once(len(shards))

    def begin(self) -> None:
        """See `Crew`."""
        for shard in self.shards:
            shard.begin()

    def collect(self, iteration: int, agent_steps: int) -> list[Collected]:
        """See `Crew`."""
        return self.learner.threads.map(lambda shard: shard.collect(iteration, agent_steps), self.shards)

    def prepare(self, normalised: Sequence[Tensor]) -> None:
        """See `Crew`."""
        for shard, advantage in zip(self.shards, normalised, strict=True):
            shard.prepare(advantage)

    def differentiate(self, rows: Sequence[Tensor], total: Tensor) -> list[Gradient]:
        """See `Crew`."""
        given = zip(self.shards, rows, strict=True)
        return self.learner.threads.map(lambda one: one[0].differentiate(one[1], total), given)

    def states(self, agent_steps: int) -> list[State]:
        """See `Crew`."""
        return [shard.state_dict(agent_steps) for shard in self.shards]

    def load(self, states: Sequence[State]) -> None:
        """See `Crew`."""
        for shard, state in zip(self.shards, states, strict=True):
            shard.load_state_dict(state)

    def describe(self) -> dict[str, Any]:
        """See `Crew`."""
        return {"kind": "local", "shards": len(self.shards)}

    def close(self) -> None:
        """See `Crew`."""
        for shard in self.shards:
            shard.world.close()


def share(rows: Tensor, sizes: Sequence[int], num_agents: int) -> list[Tensor]:
    """Rows of a rollout [T, E, N], counted in each shard alone [T, E of the shard, N].

    Args:
        rows: Of all shards, int64 [M].
        sizes: Environments of each shard.
        num_agents: N.
    """
    if len(sizes) == 1:
        return [rows]
    width = sum(sizes) * num_agents
    step, place = rows // width, rows % width
    edges = [first * num_agents for first in itertools.accumulate(sizes, initial=0)]
    found = []
    for low, high in itertools.pairwise(edges):
        own = (place >= low) & (place < high)
        found.append(step[own] * (high - low) + place[own] - low)
    return found
