"""Attention among the members of groups: instances of parts, series of one group, tokens that look alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from coterie.attention.attend import attend
from coterie.attention.data import Data, Tokens
from coterie.attention.masks import Segments
from coterie.attention.mechanisms.base import (
    About,
    Context,
    Heads,
    Mechanism,
    check_not_causal,
)
from coterie.attention.naive import naive_attention
from coterie.attention.spec import Spec


@dataclass(frozen=True, slots=True)
class GroupPose(Mechanism):
    """Of instances that have the same parts, one layer looks within an instance, the next across, at the same part.

    The grid of the context is (instances, parts). The paper has a layer of each in turn, with their own projections:
    the two together let everything reach everything. Negative segments are padding.
    """

    about: ClassVar[About] = About(
        name="group_pose",
        title="Group Pose: parts of one instance, or the same part of all instances",
        formula="within: j in the same row of the grid as i;  across: j in the same column",
        source="Group Pose: A Simple Baseline for End-to-End Multi-person Pose Estimation (arXiv 2308.07313)",
        cost="O(I P^2 d) within, O(P I^2 d) across, for I instances of P parts",
    )

    among: Literal["within", "across"] = "within"

    def module(self, heads: Heads) -> nn.Module:
        return _Rows(self)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        assert context.grid is not None
        at = torch.arange(q.shape[2], device=q.device)
        mark = at // context.grid[1] if self.among == "within" else at % context.grid[1]
        return naive_attention(q, k, v, allowed=mark[:, None] == mark)[0]

    def pairs(self, tokens: int) -> int:
        instances, parts = _grid(tokens)
        return tokens * (parts if self.among == "within" else instances)

    def context(self, tokens: int, draw: torch.Generator, heads: Heads, batch: int) -> Context:
        return Context(grid=_grid(tokens))


class _Rows(nn.Module):
    """Attention within each row or column of a grid, as a batch of them."""

    def __init__(self, mechanism: GroupPose) -> None:
        super().__init__()
        self.mechanism = mechanism

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        check_not_causal(self.mechanism.about, context)
        if context.grid is None or len(context.grid) != 2:
            raise ValueError(f"{self.mechanism.about.name} needs a grid of (instances, parts), not {context.grid}")
        fold = _Fold(q.shape[0], context.grid, self.mechanism.among == "across")
        spec, data = Spec(), Data()
        if (segment := context.data.queries.segment) is not None:
            segment = fold(segment.expand(q.shape[0], -1)[:, None, :, None])[:, 0, :, 0]
            spec, data = Spec(Segments()), Data(Tokens(segment=segment))
        return fold.back(attend(fold(q), fold(k), fold(v), spec, data))


class _Fold:
    """Between [B, H, I * P, D] and rows or columns as a batch, [B * I, H, P, D] or [B * P, H, I, D]."""

    def __init__(self, batch: int, grid: tuple[int, ...], by_column: bool) -> None:
        self.shape, self.axis = (batch, *grid), 3 if by_column else 2

    def __call__(self, x: Tensor) -> Tensor:
        return x.unflatten(2, self.shape[1:]).movedim(self.axis, 1).flatten(0, 1)

    def back(self, x: Tensor) -> Tensor:
        return x.unflatten(0, (self.shape[0], -1)).movedim(1, self.axis).flatten(2, 3)


@dataclass(frozen=True, slots=True)
class BatchGroup(Mechanism):
    """Series of a batch that belong together see each other, moment by moment.

    Segments [B, N] are the groups of the series, negative where a series has nothing to say at that moment; without
    segments the batch is one group.
    """

    about: ClassVar[About] = About(
        name="batch_group",
        title="Chronos-2: series of one group see each other at each moment, over the batch",
        formula="o_bt = sum over series c of softmax(q_bt.k_ct) v_ct,  c in the group of b and valid at t; scale 1",
        source="Chronos-2: From Univariate to Universal Forecasting (arXiv 2510.15821)",
        cost="O(N B g d) for a batch of B in groups of g",
    )

    def module(self, heads: Heads) -> nn.Module:
        return _Moments()

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
        logits = torch.einsum("bhtd,chtd->thbc", q, k)
        if (segment := context.data.queries.segment) is not None:
            group = segment.expand(q.shape[0], -1).T[:, None]
            logits = logits.masked_fill((group[..., None] != group[..., None, :]) | (group < 0)[..., None], -torch.inf)
        return torch.einsum("thbc,chtd->bhtd", logits.softmax(-1).nan_to_num(0), v)

    def pairs(self, tokens: int) -> int:
        """Of a series that is a group alone; in a group of g it has g times as many."""
        return tokens

    def context(self, tokens: int, draw: torch.Generator, heads: Heads, batch: int) -> Context:
        return Context(data=Data(Tokens(segment=torch.randint(0, 2, (batch, 1), generator=draw).expand(-1, tokens))))


class _Moments(nn.Module):
    """Attention over the batch, with moments as the batch."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        spec, data = Spec(scale=1.0), Data()
        if (segment := context.data.queries.segment) is not None:
            spec, data = Spec(Segments(), scale=1.0), Data(Tokens(segment=segment.expand(q.shape[0], -1).T))
        return attend(*(x.transpose(0, 2) for x in (q, k, v)), spec, data).transpose(0, 2)


def _grid(tokens: int) -> tuple[int, int]:
    """Instances with up to the 18 parts of the paper: 17 joints, and one for the whole."""
    parts = max(size for size in range(1, 19) if tokens % size == 0)
    return tokens // parts, parts
