"""What a policy's networks look like, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from coterie.errors import ConfigError

Kind = Literal["paper", "attention", "deepsets", "mlp"]
Preset = Literal["micro", "small", "paper"]
Activation = Literal["tanh", "relu"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """The shape of an actor and of its critic.

    Attributes:
        kind: How neighbours are read: see `encoders`.
        width: Of hidden layers.
        layers: Hidden layers through which each part of an observation goes: oneself, a neighbour, obstacles.
        heads: Of attention, where the kind has any.
        head_size: Width of a head.
        final_width: Of the layer that reads all parts together, before the output.
        activation: Of every hidden layer.
        initial_std: Standard deviation of continuous actions to begin with, in all states.
    """

    kind: Kind
    width: int = 64
    layers: int = 1
    heads: int = 4
    head_size: int = 16
    final_width: int = 64
    activation: Activation = "tanh"
    initial_std: float = 1.0

    def __post_init__(self) -> None:
        for name, known in (("kind", Kind), ("activation", Activation)):
            if getattr(self, name) not in get_args(known):
                _refuse(name, getattr(self, name), f"use one of {', '.join(get_args(known))}")
        for name in ("width", "layers", "heads", "head_size", "final_width"):
            if getattr(self, name) < 1:
                _refuse(name, getattr(self, name), "give a whole number of at least 1")
        if not 0 < self.initial_std < float("inf"):
            _refuse("initial_std", self.initial_std, "give a number above 0")

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
        "deepsets": {"width": 12, "layers": 1, "final_width": 14},
        "mlp": {"width": 16, "layers": 1, "final_width": 16},
    },
    "small": {
        "paper": {"width": 64, "layers": 2, "heads": 4, "head_size": 16, "final_width": 128},
        "attention": {"width": 64, "layers": 1, "heads": 2, "final_width": 64},
        "deepsets": {"width": 64, "layers": 2, "final_width": 64},
        "mlp": {"width": 64, "layers": 2, "final_width": 64},
    },
    "paper": {
        "paper": {"width": 256, "layers": 2, "heads": 4, "head_size": 256, "final_width": 512},
        "attention": {"width": 256, "layers": 2, "heads": 4, "final_width": 512},
        "deepsets": {"width": 256, "layers": 2, "final_width": 512},
        "mlp": {"width": 256, "layers": 2, "final_width": 256},
    },
}
