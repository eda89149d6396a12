"""Biases of the logits as products of a few factors (FlashBias): u_i.w_j instead of a number for each pair."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor, nn

from coterie.attention.attend import attend
from coterie.attention.data import Data
from coterie.attention.masks import Causal
from coterie.attention.mechanisms.base import (
    About,
    Context,
    Declaration,
    Heads,
    Mechanism,
    check_between,
    drawn_grid,
    features_of,
    grid_of,
    narrowed,
    visible,
)
from coterie.attention.naive import naive_attention
from coterie.attention.spec import Spec, widened

_SOURCE = "FlashBias: Fast Computation of Attention with Bias (arXiv 2505.12044)"


@dataclass(frozen=True, slots=True)
class Alibi(Declaration):
    """ALiBi; rank 2."""

    about: ClassVar[About] = About(
        name="alibi",
        title="ALiBi: a penalty linear in the distance back, as factors of rank 2",
        formula="s_ij = q_i.k_j / sqrt(d) - m_h (i - j),  j <= i,  m_h = 2^(-8h/H);  u = (-m_h i, m_h),  w = (1, j)",
        source="Train Short, Test Long (arXiv 2108.12409); " + _SOURCE,
        cost="O(N^2 (d + 2))",
    )

    def declare(self, q: Tensor, k: Tensor, context: Context) -> tuple[Spec, Data]:
        u, w = _penalty(q.shape[2], q.shape[1], widened(q).dtype, q.device)
        return Spec(Causal(), rank=2), replace(context.data, query_factors=u, key_factors=w)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        at = torch.arange(q.shape[2], device=q.device)
        behind = (at[:, None] - at).to(widened(q).dtype)
        bias = torch.stack([-(2 ** (-8 * (h + 1) / q.shape[1])) * behind for h in range(q.shape[1])])
        return naive_attention(q, k, v, allowed=behind >= 0, bias=bias)[0]

    def pairs(self, tokens: int) -> int:
        return tokens * (tokens + 1) // 2


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # what is kept must also serve gradients
def _penalty(tokens: int, heads: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """U [Hq, N, 2] and w [N, 2], the same tensors for all layers, so that they are checked once."""
    at = torch.arange(tokens, dtype=dtype, device=device)
    slope = slopes(heads, dtype, device)[:, None]
    u = torch.stack([-slope * at, slope.expand(-1, tokens)], -1)
    return u, torch.stack([torch.ones_like(at), at], -1)


def slopes(heads: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """2^(-8h/H) of the heads h = 1 .. H."""
    return torch.exp2(-8 * torch.arange(1, heads + 1, dtype=dtype, device=device) / heads)


class Factored(nn.Module):
    """Attention with a bias u.w, whose factors a subclass makes of the context."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        u, w = self.factors(q, context)
        data = replace(context.data, query_factors=widened(u), key_factors=widened(w))
        return attend(q, k, v, Spec(narrowed(None, context), rank=u.shape[-1]), data)

    @abstractmethod
    def factors(self, q: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """U and w, broadcastable to [B, Hq, N, R]."""


@dataclass(frozen=True, slots=True)
class SquaredDistance(Mechanism):
    """Learned strength of a penalty for each head; rank n + 2 on n axes."""

    reads = "grid"
    about: ClassVar[About] = About(
        name="squared_distance",
        title="a penalty on squared distance, its strength learned by head, as factors of rank n + 2",
        formula="s_ij = q_i.k_j / sqrt(d) - e^a |x_i - x_j|^2;  u = e^a (-|x_i|^2, -1, 2 x_i),  w = (1, |x_j|^2, x_j)",
        source=_SOURCE,
        cost="O(N^2 (d + n + 2))",
    )

    def module(self, heads: Heads) -> nn.Module:
        return _SquaredDistance(heads.queries)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        x = _coordinates(grid_of(SquaredDistance.about, context, q.shape[2], 1, 2, 3), q)
        squared = (x[:, None] - x).square().sum(-1)
        bias = -module.get_parameter("log_strength").exp()[:, None, None] * squared
        return naive_attention(q, k, v, allowed=visible(q, context), bias=bias)[0]


class _SquaredDistance(Factored):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.log_strength = nn.Parameter(torch.full((heads,), -2.0))

    def factors(self, q: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        x = _coordinates(grid_of(SquaredDistance.about, context, q.shape[2], 1, 2, 3), q)
        # Squares of numbers around 0 are smallest, and so is what their difference loses.
        x = x - x.mean(0)
        squared, one = x.square().sum(-1, keepdim=True), x.new_ones(len(x), 1)
        strength = widened(self.log_strength).exp()[:, None, None]
        return strength * torch.cat([-squared, -one, 2 * x], -1), torch.cat([one, squared, x], -1)


def _coordinates(grid: tuple[int, ...], q: Tensor) -> Tensor:
    """[N, axes], where the tokens lie."""
    axes = [torch.arange(size, device=q.device, dtype=widened(q).dtype) for size in grid]
    return torch.cartesian_prod(*axes).view(-1, len(axes))


@dataclass(frozen=True, slots=True)
class SvdBias(Mechanism):
    """A table of relative positions learned elsewhere, as in Swin, cut to its largest singular values."""

    rank: int = 16
    reach: int = 6
    """Offsets beyond it count as it, on each axis; 6 is that of Swin's window of 7."""
    axes: int = 2

    about: ClassVar[About] = About(
        name="svd_bias",
        title="a table of relative positions, cut to its largest singular values",
        formula="s_ij = q_i.k_j / sqrt(d) + (U_R S_R V_R^T)_ij  with  U S V^T = table[h, x_i - x_j]",
        source=_SOURCE,
        cost="O(N^2 (d + R)) and one SVD of N x N by head, kept while the table and the grid stay",
    )

    def __post_init__(self) -> None:
        check_between(self, 1, math.inf, "rank", "reach")
        check_between(self, 1, 3, "axes")

    @classmethod
    def small(cls) -> SvdBias:
        return cls(rank=6, reach=2)

    def module(self, heads: Heads) -> nn.Module:
        return _SvdBias(self, heads.queries)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        offsets = _offsets(self, q, context)
        table = module.get_parameter("table").detach()
        left, values, right = torch.linalg.svd(table[:, offsets])
        values[:, self.rank :] = 0
        bias = left @ torch.diag_embed(values) @ right
        return naive_attention(q, k, v, allowed=visible(q, context), bias=bias)[0]

    def context(self, tokens: int, draw: torch.Generator, heads: Heads, batch: int) -> Context:
        return drawn_grid(tokens, self.axes)


class _SvdBias(Factored):
    """`table` [Hq, (2 reach + 1)^axes] is loaded, not trained: nothing passes a gradient through the cut."""

    def __init__(self, options: SvdBias, heads: int) -> None:
        super().__init__()
        self.options = options
        size = (2 * options.reach + 1) ** options.axes
        self.table = nn.Parameter(torch.zeros(heads, size), requires_grad=False)
        self._known: tuple[object, tuple[Tensor, Tensor]] | None = None

    @torch.no_grad()
    def factors(self, q: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        key = (self.table.data_ptr(), self.table._version, self.table.dtype, q.shape[2], context.grid)
        if self._known is None or self._known[0] != key:
            bias = widened(self.table)[:, _offsets(self.options, q, context)]
            left, values, right = torch.linalg.svd(bias, full_matrices=False)
            root = values[:, None, : self.options.rank].sqrt()
            rank = self.options.rank
            self._known = key, (left[..., :rank] * root, right.mT[..., :rank] * root)
        return self._known[1]


def _offsets(options: SvdBias, q: Tensor, context: Context) -> Tensor:
    """[N, N], the entry of the table for each pair."""
    at = _coordinates(grid_of(options.about, context, q.shape[2], options.axes), q).long()
    away = (at[:, None] - at).clamp(-options.reach, options.reach) + options.reach
    strides = (2 * options.reach + 1) ** torch.arange(options.axes, device=q.device)
    return (away * strides).sum(-1)


@dataclass(frozen=True, slots=True)
class LearnedBias(Mechanism):
    """Both factors from small networks over the hidden states."""

    rank: int = 8
    hidden: int = 32

    reads = "features"
    about: ClassVar[About] = About(
        name="learned_bias",
        title="a bias whose factors are small networks of the hidden states",
        formula="s_ij = q_i.k_j / sqrt(d) + f_h(x_i).g_h(x_j),  f and g two layers, R wide",
        source=_SOURCE,
        cost="O(N^2 (d + R) + N (C m + m H R)) with m hidden units",
    )

    def __post_init__(self) -> None:
        check_between(self, 1, math.inf, "rank", "hidden")

    def module(self, heads: Heads) -> nn.Module:
        return _LearnedBias(self, heads)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        x = features_of(self.about, context)
        f, g = (module.get_submodule(name)(x).unflatten(-1, (q.shape[1], self.rank)) for name in ("query", "key"))
        bias = torch.einsum("bihr,bjhr->bhij", f, g)
        return naive_attention(q, k, v, allowed=visible(q, context), bias=bias)[0]


class _LearnedBias(Factored):
    def __init__(self, options: LearnedBias, heads: Heads) -> None:
        super().__init__()
        self.options = options
        self.query, self.key = (
            nn.Sequential(
                nn.Linear(heads.features, options.hidden), nn.GELU(),
                nn.Linear(options.hidden, heads.queries * options.rank),
            ) for _ in range(2)
        )  # fmt: skip

    def factors(self, q: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        x = features_of(LearnedBias.about, context)
        u, w = (net(x).unflatten(-1, (q.shape[1], self.options.rank)).transpose(1, 2) for net in (self.query, self.key))
        return u, w
