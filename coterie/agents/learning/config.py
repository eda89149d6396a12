"""Configs of the learners. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import ClassVar, Literal

from pydantic import Field

from coterie.agents.learning.settings import PPOSettings
from coterie.config.base import KindConfig
from coterie.config.problems import Mismatch


class _PpoConfig(KindConfig):
    """What IPPO and MAPPO have in common; see `PPOSettings`."""

    trains: ClassVar[str] = "world"
    central: ClassVar[bool]
    agent_steps: int = Field(100_000_000, ge=1)
    """Training ends after so many steps of all agents together."""
    rollout: int = Field(32, ge=2, le=65_536)
    """Steps of each environment between two updates."""
    epochs: int = Field(4, ge=1, le=100)
    """Passes over these steps per update."""
    minibatch: int = Field(4096, ge=1)
    """Agent-steps per gradient step; as many of equal size as fit."""
    learning_rate: float = Field(5e-4, gt=0, le=1)
    """Of Adam, to begin with."""
    min_learning_rate: float = Field(1e-5, gt=0, le=1)
    """`target_kl` does not take it below."""
    max_learning_rate: float = Field(1e-3, gt=0, le=1)
    """Nor above."""
    target_kl: float | None = Field(0.02, gt=0)
    """The learning rate follows what the policy changes: after an epoch with a divergence above twice this it is
    divided by 1.5, below half of this multiplied by it. null: it stays."""
    decay: bool = True
    """The learning rate is also multiplied by the share of `agent_steps` that is still to come: the policy settles."""
    discount: float = Field(0.99, ge=0, le=1)
    """Gamma."""
    trace: float = Field(0.95, ge=0, le=1)
    """Lambda of the generalised advantages."""
    clip: float = Field(0.2, gt=0, le=1)
    """How far the ratio of probabilities may go from 1."""
    value_clip: float | None = Field(None, gt=0)
    """How far a value may go from what it was, in the critic's units. null: no limit."""
    entropy: float = Field(0.0, ge=0)
    """Weight of the policy's entropy."""
    min_std: float = Field(0.15, ge=0)
    """The standard deviations of continuous actions do not get smaller: without exploration nothing more is learnt.
    Smaller ones are raised at the first step. 0: no limit."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Greatest norm of the gradient of policy and critic each."""
    normalise_values: bool = True
    """Critics learn returns of zero mean and unit variance."""
    normalise_observations: bool = True
    """Observations are divided by their root mean square, and where nothing is known of their layout also centred."""
    timeouts_terminate: bool = False
    """Take a time limit for an end, as quad-swarm-rl does."""
    shards: int | None = Field(None, ge=1)
    """Environments are cut into so many, each of which is stepped by itself and gives its share of each gradient, added
    in order; the workers of `executor: ray` hold them. null: 1; in a run that begins on Ray, as many as workers."""

    def faults(self) -> Iterator[Mismatch]:
        """Learning rates in no order."""
        rate = self.learning_rate
        for name, is_passed in (("min_learning_rate", float.__lt__), ("max_learning_rate", float.__gt__)):
            limit = vars(self).get(name)
            if limit is not None and is_passed(float(rate), float(limit)):
                yield Mismatch(("learning_rate",), f"{rate:g} is beyond {name} of {limit:g}; move one of the two")
                return

    def build(self) -> PPOSettings:
        """The same as learners take it.

        Raises:
            ConfigError: The learning rates are in no order.
        """
        given = {field.name: getattr(self, field.name) for field in fields(PPOSettings)}
        return PPOSettings(**given)


class IppoConfig(_PpoConfig):
    """Independent PPO: one policy for all agents, whose critic sees what its agent sees (arXiv 2011.09533)."""

    central: ClassVar[bool] = False
    kind: Literal["ippo"] = "ippo"


class MappoConfig(_PpoConfig):
    """Multi-agent PPO: one policy for all agents, whose critic sees the whole team (arXiv 2103.01955)."""

    central: ClassVar[bool] = True
    kind: Literal["mappo"] = "mappo"
