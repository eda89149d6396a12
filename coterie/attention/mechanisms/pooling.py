"""A sequence as a few vectors: by learned queries without keys, by heads of rank one, by generalised means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from coterie.attention.mechanisms.base import (
    About,
    Context,
    Features,
    Heads,
    check_between,
    check_not_causal,
    without_padding,
)
from coterie.attention.pool import generalised_mean
from coterie.attention.spec import widened

_ONE = "it pools a sequence into one; give what comes later as padding"


@dataclass(frozen=True, slots=True)
class Lama(Features):
    """Each head scores tokens by a matrix of rank one between them and a learned context c. Gives [B, heads, C]."""

    heads: int = 8

    about: ClassVar[About] = About(
        name="lama",
        title="LAMA: heads of rank one score tokens against one global context, and pool them",
        formula="y_h = sum_n p_hn x_n,  p_h = softmax_n tanh((a_h.c) (b_h.x_n))",
        source="Low Rank Factorization for Compact Multi-Head Self-Attention (arXiv 1912.00835)",
        cost="O(N m C)",
    )

    def __post_init__(self) -> None:
        check_between(self, 1, math.inf, "heads")

    def module(self, heads: Heads) -> nn.Module:
        return _Lama(self.heads, heads.features)

    def naive(self, module: nn.Module, x: Tensor, context: Context) -> Tensor:
        a, b, c = (module.get_parameter(name) for name in ("left", "right", "center"))
        weights = [torch.tanh(x @ torch.outer(b[h], a[h]) @ c).exp() for h in range(self.heads)]
        return torch.stack([(w[..., None] * x).sum(1) / w.sum(1)[:, None] for w in weights], 1)

    def pairs(self, tokens: int) -> int:
        return self.heads * tokens


class _Lama(nn.Module):
    def __init__(self, heads: int, features: int) -> None:
        super().__init__()
        self.left, self.right = (nn.Parameter(torch.randn(heads, features) * features**-0.5) for _ in range(2))
        self.center = nn.Parameter(torch.randn(features))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Pooled tokens [B, heads, C]."""
        check_not_causal(Lama.about, context, _ONE)
        (x,) = without_padding(context, x)
        scores = x @ self.right.T * (self.left @ self.center)
        return _weights(scores.tanh(), context) @ x


@dataclass(frozen=True, slots=True)
class EfficientProbing(Features):
    """The features are their own keys, and each query pools its slice of the values. Gives [B, C / reduction]."""

    queries: int = 32
    reduction: int = 1

    about: ClassVar[About] = About(
        name="efficient_probing",
        title="Efficient probing: learned queries pool a slice of the values each; features are keys",
        formula="y = concat_m sum_n p_mn (W x_n)_m,  p_m = softmax_n q_m.x_n / sqrt(C)",
        source="Attention, Please! Revisiting Attentive Probing Through the Lens of Efficiency (arXiv 2506.10178)",
        cost="O(N m C + N C^2)",
    )

    def __post_init__(self) -> None:
        check_between(self, 1, math.inf, "queries", "reduction")

    @classmethod
    def small(cls) -> EfficientProbing:
        return cls(queries=5)

    def module(self, heads: Heads) -> nn.Module:
        if heads.features % (self.reduction * self.queries):
            raise ValueError(
                f"efficient_probing has {heads.features} features, which reduction={self.reduction} times "
                f"queries={self.queries} does not divide; choose fewer queries"
            )
        return _EfficientProbing(self.queries, heads.features, heads.features // self.reduction)

    def naive(self, module: nn.Module, x: Tensor, context: Context) -> Tensor:
        values = (x @ module.get_parameter("values.weight").T).chunk(self.queries, -1)
        weights = [(x @ query / x.shape[-1] ** 0.5).exp() for query in module.get_parameter("queries")]
        pooled = [(w[..., None] * part).sum(1) / w.sum(1)[:, None] for w, part in zip(weights, values, strict=True)]
        return torch.cat(pooled, -1)

    def pairs(self, tokens: int) -> int:
        return self.queries * tokens


class _EfficientProbing(nn.Module):
    def __init__(self, queries: int, features: int, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.02 * torch.randn(queries, features))
        self.values = nn.Linear(features, width, bias=False)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Pooled values [B, C / reduction]."""
        check_not_causal(EfficientProbing.about, context, _ONE)
        (x,) = without_padding(context, x)
        weights = _weights(x @ self.queries.T * x.shape[-1] ** -0.5, context)
        values = self.values(x).view(*x.shape[:2], len(self.queries), -1).transpose(1, 2)
        pooled: Tensor = weights[:, :, None] @ values
        return pooled.flatten(1)


def _weights(scores: Tensor, context: Context) -> Tensor:
    """A softmax over tokens of scores [B, N, m], without padding: [B, m, N]."""
    segment = context.data.queries.segment
    if segment is not None:
        # Finite: where all is padding, the mean of its zeros is 0.
        scores = scores.masked_fill((segment < 0)[..., None], torch.finfo(scores.dtype).min)
    return widened(scores).softmax(1).mT.to(scores.dtype)


@dataclass(frozen=True, slots=True)
class GeneralisedMean(Features):
    """A power for each group of channels, as heads group them. Gives [B, C]; features count as positive."""

    groups: int = 12
    power: float = 3.0
    """At the start of training."""

    about: ClassVar[About] = About(
        name="ggem",
        title="GGeM: the generalised mean over tokens, its power learned for each group of channels",
        formula="y_c = (mean_n max(x_nc, 1e-6)^p_g)^(1/p_g),  g the group of channel c",
        source="Group Generalized Mean Pooling for Vision Transformer (arXiv 2212.04114)",
        cost="O(N C)",
    )

    def __post_init__(self) -> None:
        check_between(self, 1, math.inf, "groups")

    @classmethod
    def small(cls) -> GeneralisedMean:
        return cls(groups=5)

    def module(self, heads: Heads) -> nn.Module:
        if heads.features % self.groups:
            raise ValueError(f"ggem has groups={self.groups}, which does not divide {heads.features} features")
        return _GeneralisedMean(self.groups, self.power)

    def naive(self, module: nn.Module, x: Tensor, context: Context) -> Tensor:
        power = module.get_parameter("power").repeat_interleave(x.shape[-1] // self.groups)
        return (x.clamp(min=1e-6) ** power).mean(1) ** (1 / power)

    def pairs(self, tokens: int) -> int:
        return tokens


class _GeneralisedMean(nn.Module):
    def __init__(self, groups: int, power: float) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.full((groups,), power))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Means [B, C]."""
        check_not_causal(GeneralisedMean.about, context, _ONE)
        segment = context.data.queries.segment
        power = self.power.repeat_interleave(x.shape[-1] // len(self.power))
        return generalised_mean(x, power, kept=None if segment is None else segment >= 0)
