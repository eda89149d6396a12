"""Multi-query windows: short queries of one item, long queries of the last few."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from coterie.attention.attend import attend
from coterie.attention.mechanisms.base import (
    About,
    Context,
    Heads,
    Mechanism,
    check_between,
    narrowed,
    visible,
    without_padding,
)
from coterie.attention.naive import naive_attention
from coterie.attention.spec import Spec, widened


@dataclass(frozen=True, slots=True)
class MultiQuery(Mechanism):
    """What the query of the last item reads, mixed with what the mean of the last few queries reads.

    The paper mixes at the very end, the predictions of two stacks of layers; a layer by itself mixes its outputs. There
    the means are of items before their projection, which is the same but for a norm in between.
    """

    window: int = 3
    share: float = 0.5
    """Alpha, of the short query."""

    about: ClassVar[About] = About(
        name="mqsa",
        title="MQSA: a share of attention by each query, the rest by the mean of the last few queries",
        formula="o_i = alpha A(q_i) + (1 - alpha) A(mean of q_{i-L+1} .. q_i),  A(q) = softmax(q K^T / sqrt(d)) V",
        source="Collaboration and Transition: Distilling Item Transitions into Multi-Query Self-Attention (WSDM 2024)",
        cost="O(2 N^2 d)",
    )

    def __post_init__(self) -> None:
        check_between(self, 1, math.inf, "window")

    def module(self, heads: Heads) -> nn.Module:
        return _MultiQuery(self.window, self.share)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        windows = [q[:, :, max(0, i - self.window + 1) : i + 1].mean(2) for i in range(q.shape[2])]
        allowed = visible(q, context)
        short, _ = naive_attention(q, k, v, allowed=allowed)
        long, _ = naive_attention(torch.stack(windows, 2), k, v, allowed=allowed)
        return self.share * short + (1 - self.share) * long

    def pairs(self, tokens: int) -> int:
        return 2 * tokens**2


class _MultiQuery(nn.Module):
    def __init__(self, window: int, share: float) -> None:
        super().__init__()
        self.window, self.share = window, share

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        spec = Spec(narrowed(None, context))
        short, long = (attend(x, k, v, spec, context.data) for x in (q, self._means(q, context)))
        return self.share * short + (1 - self.share) * long

    def _means(self, q: Tensor, context: Context) -> Tensor:
        """Of each query and those before it, as many as are in the window and of its segment."""
        (rows,) = without_padding(context, widened(q))
        tokens, segment = q.shape[2], context.data.queries.segment
        own = (q.new_zeros(tokens) if segment is None else segment).view(-1, 1, tokens)
        total, count = torch.zeros_like(rows), torch.zeros_like(own)
        for back in range(min(self.window, tokens)):
            is_own = functional.pad(own[..., : tokens - back] == own[..., back:], (back, 0))
            total = total + functional.pad(rows[:, :, : tokens - back], (0, 0, back, 0)) * is_own[..., None]
            count = count + is_own
        return (total / count[..., None]).to(q.dtype)
