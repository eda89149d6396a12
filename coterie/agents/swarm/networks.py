"""The two networks of a policy: an actor that says what to do, a critic that says what to expect."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from coterie import rng
from coterie.agents.swarm import encoders
from coterie.agents.swarm.architecture import Architecture
from coterie.agents.swarm.distributions import Distribution, of
from coterie.agents.swarm.layers import Linear, Perceptron
from coterie.types import WorldSpec

_OUTPUT_GAIN = 0.01


class Actor(nn.Module):
    """From what an agent observes to what its action is drawn from.

    Args:
        architecture: The shape.
        spec: The world.
        seed: Weights are a function of it.

    Attributes:
        log_std: [A], a parameter; None where actions are discrete.

    Raises:
        ConfigError: The kind does not fit the world.
    """

    log_std: nn.Parameter | None

    def __init__(self, architecture: Architecture, spec: WorldSpec, seed: int = 0) -> None:
        super().__init__()
        self.architecture, self.spec = architecture, spec
        self.encoder = encoders.build(architecture, spec)
        self.output = Linear(architecture.final_width, spec.action_size)
        log_std = torch.full((spec.action_size,), math.log(architecture.initial_std))
        self.log_std = nn.Parameter(log_std) if spec.action == "continuous" else None
        initialise(self, seed, "actor", _OUTPUT_GAIN)

    def forward(self, observation: Tensor) -> Tensor:
        """Observations [B, D] to means of actions, or logits [B, A]."""
        return self.output(self.encoder(observation))  # type: ignore[no-any-return]

    def distribution(self, observation: Tensor) -> Distribution:
        """What actions are drawn from."""
        return of(self(observation), self.log_std)

    def attention(self, observation: Tensor) -> Tensor | None:
        """How much each row attends to each neighbour and, last, to obstacles if any: [B, heads, K + 1], or None."""
        return self.encoder.attention(observation)


class Critic(nn.Module):
    """From what an agent, or its team, observes to the value of the agent's state.

    Args:
        architecture: The shape.
        spec: The world.
        central: Also read what the team observes: a mean of features, so that teams may be of any size.
        seed: Weights are a function of it.
    """

    def __init__(self, architecture: Architecture, spec: WorldSpec, *, central: bool, seed: int = 0) -> None:
        super().__init__()
        width, activation = architecture.final_width, architecture.activation
        self.encoder = encoders.build(architecture, spec)
        self.team = encoders.build(architecture, spec) if central else None
        self.joint = Perceptron(2 * width, [width], activation) if central else None
        self.output = Linear(width, 1)
        initialise(self, seed, "critic", 1.0)

    def forward(self, observation: Tensor, team: Tensor | None = None) -> Tensor:
        """Values [B].

        Args:
            observation: [B, D].
            team: [T, N, D], for a central critic alone. T divides B; B/T consecutive rows are of the same team. Members
                that observe nothing but zeros are not there.
        """
        features = self.encoder(observation)
        if self.team is not None and self.joint is not None:
            assert team is not None, "a central critic needs the team"
            features = self.joint(torch.cat([features, self._pool(team, len(observation))], 1))
        return self.output(features)[:, 0]  # type: ignore[no-any-return]

    def _pool(self, team: Tensor, rows: int) -> Tensor:
        assert self.team is not None
        features = self.team(team.flatten(0, 1)).view(*team.shape[:2], -1)
        present = (team != 0).any(-1, keepdim=True).to(team.dtype)
        mean = (features * present).sum(1) / present.sum(1).clamp(min=1)
        pooled: Tensor = mean.repeat_interleave(rows // len(team), 0)
        return pooled


def initialise(module: nn.Module, seed: int, name: str, gain: float) -> None:
    """Uniform weights after Glorot and Bengio 2010, those of the output times `gain`; biases of zero."""
    with torch.no_grad():
        for path, layer in module.named_modules():
            if isinstance(layer, nn.Linear):
                bound = math.sqrt(6 / sum(layer.weight.shape)) * (gain if path == "output" else 1.0)
                drawn = rng.stream(seed, name, path).uniform(-bound, bound, layer.weight.shape)
                layer.weight.copy_(torch.from_numpy(drawn))
                if layer.bias is not None:
                    layer.bias.zero_()
