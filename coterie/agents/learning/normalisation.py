"""Running statistics that keep what networks see and learn near zero mean and unit variance."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from coterie.agents.swarm import distributions
from coterie.agents.swarm.networks import Actor
from coterie.types import ObservationLayout, WorldSpec

LIMIT = 10.0
_PLACE = 3
"""Numbers of a neighbour's slot that say where it is; the rest is how it moves."""


class ValueNormaliser(nn.Module):
    """What critics learn: returns less their mean, over their deviation (Yu et al. 2022, arXiv 2103.01955).

    Mean and mean square are exponential averages over updates, corrected for their start at zero.

    Args:
        keep: Share of the past that an update keeps.
    """

    mean: Tensor
    square: Tensor
    weight: Tensor

    def __init__(self, keep: float = 0.95) -> None:
        super().__init__()
        self.keep = keep
        for name in ("mean", "square", "weight"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))

    def update(self, values: Tensor) -> None:
        """Take new returns [...] in."""
        new = values.double()
        self.mean.mul_(self.keep).add_(new.mean(), alpha=1 - self.keep)
        self.square.mul_(self.keep).add_(new.square().mean(), alpha=1 - self.keep)
        self.weight.mul_(self.keep).add_(1 - self.keep)

    @property
    def deviation(self) -> Tensor:
        """Of what was taken in; 0 before anything was."""
        return torch.where(self.weight > 0, self._moments()[1], 0)

    def _moments(self) -> tuple[Tensor, Tensor]:
        weight = torch.where(self.weight > 0, self.weight, 1)
        mean = self.mean / weight
        variance = torch.where(self.weight > 0, self.square / weight - mean.square(), 1)
        return mean.float(), variance.clamp(min=1e-8).sqrt().float()

    def normalise(self, values: Tensor) -> Tensor:
        """From returns."""
        mean, deviation = self._moments()
        return (values - mean) / deviation

    def restore(self, values: Tensor) -> Tensor:
        """To returns."""
        mean, deviation = self._moments()
        return values * deviation + mean


class ObservationNormaliser(nn.Module):
    """Observations [..., D] over their root mean square, limited to 10.

    All neighbours share their statistics, and so do all numbers about obstacles, so that any number of neighbours fits
    and near ones stay nearer than far ones; zeros, which say that a slot is empty, stay zeros and do not count. Where
    nothing is known of what the numbers mean, each has statistics of its own, and its mean is taken off.

    Args:
        spec: The world.
    """

    total: Tensor
    square: Tensor
    count: Tensor

    def __init__(self, spec: WorldSpec) -> None:
        super().__init__()
        self.layout = spec.layout
        kinds = int(_kinds(spec.layout, spec.observation_size, torch.device("cpu")).max()) + 1
        for name in ("total", "square", "count"):
            self.register_buffer(name, torch.zeros(kinds, dtype=torch.float64))

    def update(self, observations: Tensor) -> None:
        """Take observations [M, D] in."""
        self.take(self.measure(observations))

    def measure(self, observations: Tensor) -> Tensor:
        """What `take` needs of observations [M, D]: sums of them, of their squares, and of how many count, [3, D]."""
        new = observations.double()
        counted = torch.ones_like(new) if self.layout is None else (new != 0).double()
        return torch.stack([numbers.sum(0) for numbers in (new, new.square(), counted)])

    def take(self, sums: Tensor) -> None:
        """Take in what was measured, here or elsewhere, [3, D]."""
        kinds = _kinds(self.layout, sums.shape[-1], sums.device)
        for statistic, numbers in zip((self.total, self.square, self.count), sums, strict=True):
            statistic.index_add_(0, kinds, numbers)

    def forward(self, observations: Tensor) -> Tensor:
        mean, scale = self.terms(observations.shape[-1])
        return ((observations - mean) * scale).clamp(-LIMIT, LIMIT)

    def terms(self, size: int) -> tuple[Tensor, Tensor]:
        """What is taken off each of `size` numbers, and what the rest is multiplied by: float32 [size]."""
        kinds, count = _kinds(self.layout, size, self.count.device), self.count.clamp(min=1)
        mean = self.total / count if self.layout is None else torch.zeros_like(count)
        variance = torch.where(self.count > 0, self.square / count - mean.square(), 1)
        return mean.float()[kinds], variance.clamp(min=1e-6).rsqrt().float()[kinds]


@functools.cache
@torch.inference_mode(False)  # what is kept must also serve gradients
def _kinds(layout: ObservationLayout | None, size: int, device: torch.device) -> Tensor:
    """Which of `size` numbers share statistics: those with equal numbers here."""
    if layout is None:
        return torch.arange(size, device=device)
    own, slots = layout.self_size, (size - layout.self_size - layout.obstacle_size) // layout.neighbour_size
    neighbour = [own + (number >= _PLACE) for number in range(layout.neighbour_size)]
    return torch.tensor([*range(own), *neighbour * slots, *[own + 2] * layout.obstacle_size], device=device)


class NormalisedActor(nn.Module):
    """An actor behind the statistics it was trained with."""

    def __init__(self, normaliser: ObservationNormaliser, actor: Actor) -> None:
        super().__init__()
        self.normaliser, self.actor = normaliser, actor

    def forward(self, observation: Tensor) -> Tensor:
        return self.actor(self.normaliser(observation))  # type: ignore[no-any-return]

    def distribution(self, observation: Tensor) -> distributions.Distribution:
        """What actions are drawn from."""
        return self.actor.distribution(self.normaliser(observation))

    def attention(self, observation: Tensor) -> Tensor | None:
        """See `Actor`."""
        return self.actor.attention(self.normaliser(observation))
