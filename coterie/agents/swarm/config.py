"""Configs of the policies of worlds. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, cast

from pydantic import Field

from coterie.agents.swarm.architecture import Activation, Architecture, Kind, Preset
from coterie.attention.choice import Choice, MechanismConfig
from coterie.config.base import KindConfig
from coterie.config.problems import Mismatch
from coterie.types import WorldSpec


class SwarmPolicyConfig(KindConfig):
    """What all kinds have in common: a preset, and what shall differ from it."""

    preset: Preset = "small"
    """`micro`: about a thousand parameters, for a microcontroller; `small`: 64 wide, trains on a CPU; `paper`: 256
    wide, as published."""
    width: int | None = Field(None, ge=1)
    """Of hidden layers."""
    layers: int | None = Field(None, ge=1)
    """Hidden layers through which each part of an observation goes: oneself, a neighbour, obstacles."""
    final_width: int | None = Field(None, ge=1)
    """Of the hidden layer that reads all parts together."""
    activation: Activation = "tanh"
    """Of every hidden layer."""
    initial_std: float = Field(1.0, gt=0)
    """Standard deviation of continuous actions to begin with, in all states; not less than `learning.min_std`."""

    def build(self) -> Architecture:
        """The networks' shape."""
        given = self.model_dump(exclude={"kind", "preset"}, exclude_none=True)
        return replace(Architecture.preset(cast(Kind, self.kind), self.preset), **given)

    def check(self, spec: WorldSpec) -> None:
        """Whether it can be made for a world.

        Raises:
            ConfigError: it cannot; `where` is its path.
        """
        # What a policy needs follows from its kind alone.
        Architecture.preset(cast(Kind, self.kind), "small").check(spec)


class PaperConfig(SwarmPolicyConfig):
    """What Huang et al. ran: all neighbours are one token and obstacles another, which attend to each other."""

    kind: Literal["paper"] = "paper"
    heads: int | None = Field(None, ge=1)
    """Of attention."""
    head_size: int | None = Field(None, ge=1)
    """Width of a head."""


class _SharedWidthConfig(SwarmPolicyConfig):
    heads: int | None = Field(None, ge=1)
    """Of attention; they share `width`."""

    def faults(self) -> Iterator[Mismatch]:
        """Heads that do not share the width."""
        preset = Architecture.preset(cast(Kind, self.kind), self.preset)
        width, heads = self.width or preset.width, self.heads or preset.heads
        if width % heads:
            yield Mismatch(("heads",), f"heads is {heads}; give a number that divides the width of {width}")


class AttentionConfig(_SharedWidthConfig):
    """Each drone attends to each of its neighbours, however many, and to obstacles."""

    kind: Literal["attention"] = "attention"


class MechanismPolicyConfig(_SharedWidthConfig):
    """Oneself, neighbours and obstacles attend to each other by a mechanism of the literature."""

    kind: Literal["mechanism"] = "mechanism"
    attention: Choice = MechanismConfig(kind="gated")
    """One of `coterie ls attention`, and its options."""

    def faults(self) -> Iterator[Mismatch]:
        yield from super().faults()
        yield from (replace(fault, path=("attention", *fault.path)) for fault in self.attention.faults())

    def build(self) -> Architecture:
        chosen = self.attention.build()
        options = {name: getattr(chosen, name) for name in self.attention.options}
        given = self.model_dump(exclude={"kind", "preset", "attention"}, exclude_none=True)
        shape = Architecture.preset("mechanism", self.preset)
        return replace(shape, mechanism=self.attention.kind, options=options, **given)

    def check(self, spec: WorldSpec) -> None:
        super().check(spec)
        if spec.layout is not None and not any(self.faults()):
            from coterie.agents.swarm.encoders import MechanismEncoder

            MechanismEncoder(self.build(), spec.layout)


class DeepSetsConfig(SwarmPolicyConfig):
    """The mean of what each neighbour is encoded as."""

    kind: Literal["deepsets"] = "deepsets"


class MlpConfig(SwarmPolicyConfig):
    """All numbers through one perceptron: for any world."""

    kind: Literal["mlp"] = "mlp"
