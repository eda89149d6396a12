"""A critic that says what each member of a team adds to its reward."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from coterie.agents.swarm import encoders
from coterie.agents.swarm.architecture import Architecture
from coterie.agents.swarm.layers import Linear, Perceptron
from coterie.agents.swarm.networks import initialise
from coterie.types import WorldSpec


class TeamCritic(nn.Module):
    """From what N members observe and do to what each adds to the reward of a step.

        e_i = g(o_i, a_i)   l_hi = softmax over i of q_h(mean_j e_j) . k_h(e_i) / sqrt(d)   c_i = sum_h l_hi v_h(e_i)

    The attention is that of MAAC (Iqbal and Sha 2019, arXiv 1810.02912, section 3.2), with keys and values of each pair
    (o_i, a_i). The team asks in the place of an agent, as in Qatten's mixer (arXiv 2002.03939), so that the terms are
    shares of one number. Values see their own member alone: what another one earns can only be in that one's term.

    Args:
        architecture: Encoders are of its kind.
        spec: The world.
        heads: Of attention.
        seed: Weights are a function of it.
    """

    def __init__(self, architecture: Architecture, spec: WorldSpec, heads: int, seed: int = 0) -> None:
        super().__init__()
        width = architecture.final_width
        self.spec, self.heads, size = spec, heads, heads * max(width // heads, 1)
        self.encoder = encoders.build(architecture, spec)
        self.joint = Perceptron(width + spec.action_size, [width], architecture.activation)
        self.query, self.key = Linear(width, size, bias=False), Linear(width, size, bias=False)
        self.output = Linear(width, heads)
        initialise(self, seed, "team", 0.01)

    def forward(self, observation: Tensor, action: Tensor, present: Tensor) -> Tensor:
        """What each member adds, c [T, N]: 0 for those that are not there.

        Args:
            observation: [T N, D], a team's in a row.
            action: [T N, A], or int64 [T N].
            present: Who is there, bool [T, N].
        """
        read, values = self._read(observation, action, present)
        return (read * values.transpose(1, 2)).sum(1)

    def attention(self, observation: Tensor, action: Tensor, present: Tensor) -> Tensor:
        """How much a team attends to each member, l [T, heads, N]; see `forward`."""
        return self._read(observation, action, present)[0]

    def _read(self, observation: Tensor, action: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [T, H, N] and values [T, N, H]."""
        if self.spec.action == "discrete":
            action = functional.one_hot(action, self.spec.action_size).to(observation.dtype)
        members = self.joint(torch.cat([self.encoder(observation), action], 1)).view(*present.shape, -1)
        there = present[..., None].to(members.dtype)
        team = (members * there).sum(1) / there.sum(1).clamp(min=1)
        flat = members.flatten(0, 1)
        keys = self.key(flat).view(*present.shape, self.heads, -1)
        weights = encoders.attend(self.query(team).view(len(team), self.heads, -1), keys, present)
        return weights, self.output(flat).view(*present.shape, self.heads)
