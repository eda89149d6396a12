"""A gate on the output of attention, before the heads are mixed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from coterie.attention.attend import attend
from coterie.attention.mechanisms.base import (
    About,
    Context,
    Heads,
    Mechanism,
    features_of,
    narrowed,
    visible,
)
from coterie.attention.naive import naive_attention
from coterie.attention.spec import Spec


@dataclass(frozen=True, slots=True)
class Gated(Mechanism):
    """Of each number of the output, or of each head as a whole."""

    by_head: bool = False

    reads = "features"
    about: ClassVar[About] = About(
        name="gated",
        title="Gated Attention: a sigmoid gate from the hidden states on each head's output",
        formula="o_i = sigmoid(W_g x_i) * sum_j p_ij v_j;  W_g has H d rows, by head H",
        source="Gated Attention for Large Language Models (arXiv 2505.06708)",
        cost="O(N^2 d + N C d), by head O(N^2 d + N C)",
    )

    def module(self, heads: Heads) -> nn.Module:
        return _Gated(nn.Linear(heads.features, heads.queries * (1 if self.by_head else heads.width), bias=False))

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        logits = features_of(self.about, context) @ module.get_parameter("gate.weight").T
        gate = 1 / (1 + torch.exp(-logits))
        o, _ = naive_attention(q, k, v, allowed=visible(q, context))
        return o * torch.stack(gate.chunk(q.shape[1], -1), 1)


class _Gated(nn.Module):
    def __init__(self, gate: nn.Linear) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        gate = self.gate(features_of(Gated.about, context)).sigmoid().unflatten(-1, (q.shape[1], -1)).transpose(1, 2)
        return attend(q, k, v, Spec(narrowed(None, context), gate=True), replace(context.data, gate=gate))
