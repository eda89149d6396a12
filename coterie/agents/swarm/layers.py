"""What encoders are made of."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from coterie.agents.swarm.activations import activate
from coterie.agents.swarm.architecture import Activation
from coterie.types import ObservationLayout


class Linear(nn.Linear):
    """A linear layer that makes its weights neither by itself nor from torch's generator; quick from few to many."""

    def reset_parameters(self) -> None:
        """Nothing: `networks` sets all weights."""

    def forward(self, x: Tensor) -> Tensor:
        if self.in_features >= self.out_features or x.is_cuda:
            return functional.linear(x, self.weight, self.bias)
        # Autograd then multiplies by the input from the left: on a CPU up to nine times as fast with 6 numbers.
        weight = self.weight.t().contiguous()
        return x @ weight if self.bias is None else torch.addmm(self.bias, x, weight)


class Perceptron(nn.Module):
    """Linear layers, each with its activation, from [B, inputs] to [B, widths[-1]]."""

    def __init__(self, inputs: int, widths: list[int], activation: Activation) -> None:
        super().__init__()
        self.inputs = inputs
        self.layers = nn.ModuleList(Linear(*sizes) for sizes in zip([inputs, *widths], widths, strict=False))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = activate(layer(x), self.activation)
        return x


CONTRAST = 10.0
"""Factor of what sets a distance to obstacles apart from those beside it; see `split`."""


class Parts(NamedTuple):
    """An observation taken apart: oneself [B, S], neighbours [B, K, F], obstacles [B, O], where O may be 0."""

    oneself: Tensor
    neighbours: Tensor
    obstacles: Tensor


def split(observation: Tensor, layout: ObservationLayout) -> Parts:
    """Observations [B, D] by layout, for as many neighbours K as D has room for.

    Distances to obstacles are measured at points so near to each other that all are nearly the same, while their
    differences say where the obstacle is. So what sets each apart from their mean becomes `CONTRAST` times as large.

    Raises:
        ValueError: D fits no number of neighbours.
    """
    room = observation.shape[-1] - layout.self_size - layout.obstacle_size
    if room < 0 or room % layout.neighbour_size:
        raise ValueError(
            f"observation has {observation.shape[-1]} numbers, expected {layout.self_size + layout.obstacle_size} and "
            f"{layout.neighbour_size} for each neighbour"
        )
    oneself, neighbours, obstacles = torch.split(observation, [layout.self_size, room, layout.obstacle_size], 1)
    slots = neighbours.reshape(observation.shape[0], room // layout.neighbour_size, layout.neighbour_size)
    if layout.obstacle_size:
        obstacles = obstacles.mean(1, keepdim=True).lerp(obstacles, CONTRAST)
    return Parts(oneself, slots, obstacles)


def find_present(neighbours: Tensor) -> Tensor:
    """Which slots of [B, K, F] hold a neighbour: bool [B, K]."""
    return (neighbours != 0).any(-1)
