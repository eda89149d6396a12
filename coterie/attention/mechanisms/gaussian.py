"""Features weighted by Gaussians around their own mean: no queries, no keys."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from coterie.attention.mechanisms.base import About, Context, Features, Heads, check_between
from coterie.attention.spec import widened

_LEAST = 1e-8
"""Added to the variance, as in the authors' code."""


@dataclass(frozen=True, slots=True)
class GaussianAdaptive(Features):
    """Of each head's share of a token's channels, those near its mean, moved by the offsets, are emphasised.

    A product of Gaussians of one variance is a Gaussian: with precision P = sum_g 1/c_g^2 and shift
    s = sum_g (delta_g / c_g^2) / P, their normalised product is the softmax of one square, which does not underflow.
    """

    heads: int = 4
    gaussians: int = 5

    about: ClassVar[About] = About(
        name="gaussian_adaptive",
        title="GAAM: channels weighted by a product of learned Gaussians around their mean",
        formula="y = x * w,  w = prod_g N(x; m + delta_g, c_g^2 s^2) / sum of it over the head's channels\n"
        "m, s^2: mean and variance of x over them;  = softmax(-P (x - m - shift)^2 / 2 s^2)",
        source="Gaussian Adaptive Attention is All You Need (arXiv 2401.11143)",
        cost="O(N C), by the definition O(N C G)",
    )

    def __post_init__(self) -> None:
        check_between(self, 1, math.inf, "heads", "gaussians")

    @classmethod
    def small(cls) -> GaussianAdaptive:
        return cls(heads=2, gaussians=3)

    def module(self, heads: Heads) -> nn.Module:
        if heads.features % self.heads or heads.features == self.heads:
            raise ValueError(
                f"gaussian_adaptive has heads={self.heads}, which do not share {heads.features} features evenly and by "
                "two at least; choose a smaller divisor"
            )
        return _GaussianAdaptive(self.heads, self.gaussians)

    def naive(self, module: nn.Module, x: Tensor, context: Context) -> Tensor:
        shifts, widths = module.get_parameter("shifts"), module.get_parameter("widths")
        parts = []
        for head, part in enumerate(x.chunk(self.heads, -1)):
            mean, variance = part.mean(-1, keepdim=True), part.var(-1, keepdim=True) + _LEAST
            logs = torch.zeros_like(part)
            for shift, width in zip(shifts[head], widths[head], strict=True):
                spread = variance * width**2
                logs = logs - (part - mean - shift) ** 2 / (2 * spread) - 0.5 * torch.log(2 * math.pi * spread)
            product = (logs - logs.amax(-1, keepdim=True)).exp()
            parts.append(part * product / product.sum(-1, keepdim=True))
        return torch.cat(parts, -1)

    def pairs(self, tokens: int) -> int:
        return tokens


class _GaussianAdaptive(nn.Module):
    def __init__(self, heads: int, gaussians: int) -> None:
        super().__init__()
        self.shifts = nn.Parameter(torch.zeros(heads, gaussians))
        self.widths = nn.Parameter(torch.randn(heads, gaussians))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """The features [B, N, C], weighted; each token by itself."""
        parts = x.reshape(*x.shape[:2], len(self.shifts), -1)
        wide = widened(parts)
        variance, mean = torch.var_mean(wide, -1, keepdim=True)
        precisions = widened(self.widths).square().reciprocal()
        precision = precisions.sum(-1, keepdim=True)
        shift = (self.shifts * precisions).sum(-1, keepdim=True) / precision
        logits = -0.5 * precision / (variance + _LEAST) * (wide - mean - shift).square()
        weighted: Tensor = parts * logits.softmax(-1).to(x.dtype)
        return weighted.flatten(2)
