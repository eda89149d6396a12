"""Scores from one matrix for queries and keys together, collapsed or symmetric, instead of from two projections."""

from __future__ import annotations

from dataclasses import dataclass
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
from coterie.attention.naive import naive_attention, share_heads
from coterie.attention.spec import Spec

_SOURCE = "Reducing the Transformer Architecture to a Minimum (arXiv 2410.13732)"


@dataclass(frozen=True, slots=True)
class Collapsed(Mechanism):
    """The product of the two projections of each head as one full matrix; the keys are the hidden states."""

    reads = "features"
    about: ClassVar[About] = About(
        name="collapsed",
        title="scores of hidden states by one full matrix for each head, without queries and keys",
        formula="s_ij = x_i^T W_h x_j / sqrt(C),  W_h for W_Q W_K^T;  q and k are not read",
        source=_SOURCE,
        cost="O(N^2 (C + d) + N C^2)",
    )

    def module(self, heads: Heads) -> nn.Module:
        return _Collapsed(heads)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        x, w = features_of(self.about, context), module.get_parameter("w")
        return _with_scores(torch.einsum("bic,hce,bje->bhij", x, w, x) / x.shape[-1] ** 0.5, v, context)


class _Collapsed(nn.Module):
    def __init__(self, heads: Heads) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(heads.queries, heads.features, heads.features) / heads.features**0.5)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        x = features_of(Collapsed.about, context)[:, None]
        return _attend(x @ self.w, x, v, context)


@dataclass(frozen=True, slots=True)
class Symmetric(Mechanism):
    """One projection of each head, for queries and keys alike: half the parameters."""

    reads = "features"
    about: ClassVar[About] = About(
        name="symmetric",
        title="symmetric scores: one projection of the hidden states for queries and keys alike",
        formula="s_ij = (T_h x_i).(T_h x_j) / sqrt(d);  q and k are not read",
        source=_SOURCE,
        cost="O(N^2 d + N C d)",
    )

    def module(self, heads: Heads) -> nn.Module:
        return _Symmetric(heads)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        x, t = features_of(self.about, context), module.get_parameter("t")
        return _with_scores(torch.einsum("bic,hcd,hed,bje->bhij", x, t, t, x) / t.shape[-1] ** 0.5, v, context)


class _Symmetric(nn.Module):
    def __init__(self, heads: Heads) -> None:
        super().__init__()
        self.t = nn.Parameter(torch.randn(heads.queries, heads.features, heads.width) / heads.features**0.5)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        projected = features_of(Symmetric.about, context)[:, None] @ self.t
        return _attend(projected, projected, v, context)


def _attend(q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
    """With the keys of one head or of each query head, and the values of each key head."""
    heads = q.shape[1]
    return attend(q, k.expand(-1, heads, -1, -1), share_heads(v, heads), Spec(narrowed(None, context)), context.data)


def _with_scores(scores: Tensor, v: Tensor, context: Context) -> Tensor:
    """softmax(scores) v, as written: no product of queries and keys."""
    nothing = scores.new_zeros(*scores.shape[:-1], 1)
    return naive_attention(
        nothing, nothing, share_heads(v, scores.shape[1]), allowed=visible(nothing, context), bias=scores
    )[0]
