"""What a policy's networks look like, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from coterie.errors import ConfigError
from coterie.types import WorldSpec

Kind = Literal["paper", "attention", "mechanism", "deepsets", "mlp"]
Preset = Literal["micro", "small", "paper"]
Activation = Literal["tanh", "relu"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """The shape of an actor and of its critic.

    Attributes:
        kind: How neighbours are read: see `encoders`.
        width: Of hidden layers.
        layers: Hidden layers through which each part of an observation goes: oneself, a neighbour, obstacles.
        heads: Of attention, where the kind has any; those of kinds `attention` and `mechanism` share the width.
        head_size: Width of a head of kind `paper`.
        final_width: Of the layer that reads all parts together, before the output.
        activation: Of every hidden layer.
        initial_std: Standard deviation of continuous actions to begin with, in all states.
        mechanism: Of kind `mechanism`: the attention registered by that name.
        options: Of it, where they are not the published ones.
    """

    kind: Kind
    width: int = 64
    layers: int = 1
    heads: int = 4
    head_size: int = 16
    final_width: int = 64
    activation: Activation = "tanh"
    initial_std: float = 1.0
    mechanism: str = "gated"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, known in (("kind", Kind), ("activation", Activation)):
            if getattr(self, name) not in get_args(known):
                _refuse(name, getattr(self, name), f"use one of {', '.join(get_args(known))}")
        for name in ("width", "layers", "heads", "head_size", "final_width"):
            if getattr(self, name) < 1:
                _refuse(name, getattr(self, name), "give a whole number of at least 1")
        if self.kind in ("attention", "mechanism") and self.width % self.heads:
            _refuse("heads", self.heads, f"give a number that divides the width of {self.width}")
        if not 0 < self.initial_std < float("inf"):
            _refuse("initial_std", self.initial_std, "give a number above 0")

    def check(self, spec: WorldSpec) -> None:
        """Whether such networks can be made for a world.

        Raises:
            ConfigError: They need something to attend to that the world does not have, or does not say where it stands.
        """
        if self.kind == "mlp":
            return
        if spec.layout is None:
            raise ConfigError(
                f"a policy of kind {self.kind} must know where neighbours stand in an observation, "
                "which this world does not say",
                where="policy.kind",
                remedy="use `policy: {kind: mlp}`",
            )
        attends = self.kind in ("paper", "attention", "mechanism")
        if attends and not spec.layout.num_neighbours and not spec.layout.obstacle_size:
            raise ConfigError(
                f"a policy of kind {self.kind} needs neighbours or obstacles that it sees, and there are none",
                where="policy.kind",
                remedy="use `policy: {kind: mlp}`",
            )

    @classmethod
    def preset(cls, kind: Kind, size: Preset) -> Architecture:
        """A shape that is known to be of use.

        Args:
            kind: How neighbours are read.
            size: `micro`: about a thousand parameters, for a microcontroller; `small`: 64 wide, for training on a CPU;
                `paper`: 256 wide, as published (arXiv 2309.13285).

        Raises:
            ConfigError: There is no such kind or size.
        """
        if size not in _PRESETS:
            raise ConfigError(f"there is no preset {size!r}", where="policy.preset",
                              remedy=f"use one of {', '.join(_PRESETS)}")  # fmt: skip
        return cls(kind, **_PRESETS[size].get(kind, {}))


def _refuse(name: str, value: object, remedy: str) -> None:
    raise ConfigError(f"{name} is {value!r}", where=f"policy.{name}", remedy=remedy)


_PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "micro": {
        "paper": {"width": 10, "layers": 1, "heads": 1, "head_size": 10, "final_width": 10},
        "attention": {"width": 12, "layers": 1, "heads": 1, "final_width": 12},
        "mechanism": {"width": 10, "layers": 1, "heads": 1, "final_width": 10},
        "deepsets": {"width": 12, "layers": 1, "final_width": 14},
        "mlp": {"width": 16, "layers": 1, "final_width": 16},
    },
    "small": {
        "paper": {"width": 64, "layers": 2, "heads": 4, "head_size": 16, "final_width": 128},
        "attention": {"width": 64, "layers": 1, "heads": 2, "final_width": 64},
        "mechanism": {"width": 64, "layers": 1, "heads": 2, "final_width": 64},
        "deepsets": {"width": 64, "layers": 2, "final_width": 64},
        "mlp": {"width": 64, "layers": 2, "final_width": 64},
    },
    "paper": {
        "paper": {"width": 256, "layers": 2, "heads": 4, "head_size": 256, "final_width": 512},
        "attention": {"width": 256, "layers": 2, "heads": 4, "final_width": 512},
        "mechanism": {"width": 256, "layers": 2, "heads": 4, "final_width": 512},
        "deepsets": {"width": 256, "layers": 2, "final_width": 512},
        "mlp": {"width": 256, "layers": 2, "final_width": 256},
    },
}
