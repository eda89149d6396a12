"""Attention among the members of groups: instances of parts, series of one group, tokens that look alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from coterie.attention.attend import attend
from coterie.attention.data import Data, Tokens
from coterie.attention.masks import Segments
from coterie.attention.mechanisms.base import (
    About,
    Context,
    Features,
    Heads,
    Mechanism,
    Missing,
    check_between,
    check_not_causal,
    grid_of,
    narrowed,
    padding_of,
    visible,
    without_padding,
)
from coterie.attention.naive import naive_attention
from coterie.attention.spec import Spec

_EPSILON = 1e-8
_ROWS = 1024
"""Tokens whose similarities are in memory at once."""


@dataclass(frozen=True, slots=True)
class GroupPose(Mechanism):
    """Of instances that have the same parts, one layer looks within an instance, the next across, at the same part.

    The grid of the context is (instances, parts). The paper has a layer of each in turn, with their own projections:
    the two together let everything reach everything. Negative segments are padding.
    """

    among: Literal["within", "across"] = "within"

    about: ClassVar[About] = About(
        name="group_pose",
        title="Group Pose: parts of one instance, or the same part of all instances",
        formula="within: j in the same row of the grid as i;  across: j in the same column",
        source="Group Pose: A Simple Baseline for End-to-End Multi-person Pose Estimation (arXiv 2308.07313)",
        cost="O(I P^2 d) within, O(P I^2 d) across, for I instances of P parts",
    )

    def module(self, heads: Heads) -> nn.Module:
        return _Rows(self)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        assert context.grid is not None
        at = torch.arange(q.shape[2], device=q.device)
        mark = at // context.grid[1] if self.among == "within" else at % context.grid[1]
        return naive_attention(q, k, v, allowed=(mark[:, None] == mark) & visible(q, context))[0]

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
        grid = grid_of(self.mechanism.about, context, q.shape[2], 2)
        fold = _Fold(q.shape[0], grid, self.mechanism.among == "across")
        segment = context.data.queries.segment
        if segment is not None:
            segment = fold(segment.expand(q.shape[0], -1)[:, None, :, None])[:, 0, :, 0]
        data = Data(Tokens(segment=segment))
        # Folding keeps the order of the tokens that meet.
        spec = Spec(narrowed(None, replace(context, data=data)))
        return fold.back(attend(fold(q), fold(k), fold(v), spec, data))


class _Fold:
    """Between [B, H, I * P, D] and rows or columns as a batch, [B * I, H, P, D] or [B * P, H, I, D]."""

    def __init__(self, batch: int, grid: tuple[int, ...], by_column: bool) -> None:
        self.shape, self.axis = (batch, *grid), 3 if by_column else 2

    def __call__(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, 2, self.shape[1:]).movedim(self.axis, 1).flatten(0, 1)

    def back(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, 0, (self.shape[0], -1)).movedim(1, self.axis).flatten(2, 3)


@dataclass(frozen=True, slots=True)
class BatchGroup(Mechanism):
    """Series of a batch that belong together see each other, moment by moment.

    Segments [B, N] are the groups of the series, negative where a series has nothing to say at that moment; without
    segments the batch is one group.
    """

    meets_batch = True
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
        q, k, v = (x.transpose(0, 2) for x in (q, k, v))
        return attend(q, k, v, spec, data).transpose(0, 2)


@dataclass(frozen=True, slots=True)
class HierarchicalGroup(Features):
    """Each token takes up what looks like it, mostly in its own group, gated by how much that would change it.

    Groups are numbers in `Tokens.group`. Which tokens are neighbours has no gradient, how alike they are has one.
    """

    neighbors: int = 20
    within: float = 0.7
    """Share of the neighbours that are of the own group, rounded down."""
    steepness: float = 10.0
    change: float = 0.2
    """At which mean change half of it is taken up."""

    about: ClassVar[About] = About(
        name="hierarchical_group",
        title="MoCHA: the most similar tokens, 70% of the own group, gated by what they change",
        formula="w_ij = min-max of cos(x_i, x_j) over the k nearest, both ways;  a_i = sum_j w_ij x_j / sum_j w_ij\n"
        "g_i = sigmoid(10 (mean|x_i - a_i| - 0.2));  y_i = LayerNorm((1 - g_i) x_i + g_i a_i)",
        source="MoCHA: Advanced Vision-Language Reasoning with MoE Connector and Hierarchical Group Attention "
        "(arXiv 2507.22805)",
        cost="O(N^2 C) for the similarities, O(N k C) for the rest",
    )

    def __post_init__(self) -> None:
        check_between(self, 1, math.inf, "neighbors")
        check_between(self, 0, 1, "within")

    @classmethod
    def small(cls) -> Self:
        return cls(neighbors=7)

    def module(self, heads: Heads) -> nn.Module:
        return _Hierarchy(self)

    def naive(self, module: nn.Module, x: Tensor, context: Context) -> Tensor:
        group, unit = _groups(x, context), functional.normalize(x, dim=-1)
        same, cosine = group[:, :, None] == group[:, None], unit @ unit.mT
        chosen = torch.zeros_like(same)
        for count, among in zip(self.counts, (same, ~same), strict=True):
            others = among & ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
            best = cosine.masked_fill(~others, -torch.inf).argsort(-1, descending=True)[..., :count]
            chosen |= torch.zeros_like(same).scatter(-1, best, True) & others
        low, high = (f(cosine.masked_fill(~chosen, end), (1, 2), keepdim=True)
                     for f, end in ((torch.amin, 2.0), (torch.amax, -2.0)))  # fmt: skip
        weight = ((cosine - low) / (high - low + _EPSILON)).masked_fill(~chosen, 0)
        weight = weight + weight.mT
        taken = weight @ x / (weight.sum(-1, keepdim=True) + _EPSILON)
        change = (x - taken).abs().mean(-1, keepdim=True)
        gate = 1 / (1 + torch.exp(-self.steepness * (change - self.change)))
        y = (1 - gate) * x + gate * taken
        y = y - y.mean(-1, keepdim=True)
        return y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    @property
    def counts(self) -> tuple[int, int]:
        """Neighbours of the own group and of others."""
        within = int(self.neighbors * self.within)
        return within, self.neighbors - within

    def context(self, tokens: int, draw: torch.Generator, heads: Heads, batch: int) -> Context:
        return Context(data=Data(Tokens(group=torch.randint(0, 3, (batch, tokens), generator=draw))))


class _Hierarchy(nn.Module):
    """Neighbours by blocks of rows, so that all similarities are never in memory at once; then a sum over edges."""

    def __init__(self, mechanism: HierarchicalGroup) -> None:
        super().__init__()
        self.mechanism = mechanism

    def forward(self, x: Tensor, context: Context) -> Tensor:
        check_not_causal(self.mechanism.about, context, "who is taken up takes up too; hop_wise has one")
        padding = padding_of(self.mechanism.about, context)
        (x,) = without_padding(context, x)
        batch, n, _ = x.shape
        unit = functional.normalize(x, dim=-1)
        index, is_edge = self._nearest(unit.detach(), _groups(x, context), padding)
        start = torch.arange(batch, device=x.device)[:, None, None] * n
        head = (torch.arange(n, device=x.device)[:, None] + start).expand_as(index).flatten()
        tail, x, unit = (index + start).flatten(), x.flatten(0, 1), unit.flatten(0, 1)
        cosine = (unit[head] * unit[tail]).sum(-1).view_as(index)
        low, high = (f(cosine.masked_fill(~is_edge, end), (1, 2), keepdim=True)
                     for f, end in ((torch.amin, 2.0), (torch.amax, -2.0)))  # fmt: skip
        weight = ((cosine - low) / (high - low + _EPSILON)).masked_fill(~is_edge, 0).flatten().repeat(2)
        head, tail = torch.cat([head, tail]), torch.cat([tail, head])
        taken = torch.zeros_like(x).index_add(0, head, weight[:, None] * x[tail])
        total = weight.new_zeros(len(x)).index_add(0, head, weight)
        return self._gated(x, taken / (total[:, None] + _EPSILON)).view(batch, n, -1)

    def _gated(self, x: Tensor, taken: Tensor) -> Tensor:
        """The last line of the formula."""
        change = (x - taken).abs().mean(-1, keepdim=True)
        gate = torch.sigmoid(self.mechanism.steepness * (change - self.mechanism.change))
        return functional.layer_norm(torch.lerp(x, taken, gate), x.shape[-1:])

    @torch.no_grad()
    def _nearest(self, unit: Tensor, group: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor]:
        """Ids [B, N, K] of the most similar others, and which of them there are: none of padding, or for it."""
        at, found = torch.arange(unit.shape[1], device=unit.device), []
        for rows in torch.split(at, _ROWS):
            cosine = unit[:, rows] @ unit.mT
            same = group[:, rows, None] == group[:, None]
            cosine.masked_fill_(rows[:, None] == at, -torch.inf)
            if padding is not None:
                cosine.masked_fill_(padding[:, None] | padding[:, rows, None], -torch.inf)
            best = [
                cosine.masked_fill(~among, -torch.inf).topk(min(count, len(at)))
                for count, among in zip(self.mechanism.counts, (same, ~same), strict=True)
            ]
            found.append([torch.cat(x, -1) for x in zip(*best, strict=True)])
        values, index = (torch.cat(x, 1) for x in zip(*found, strict=True))
        return index, values > -torch.inf


def _groups(x: Tensor, context: Context) -> Tensor:
    """[B, N].

    Raises:
        Missing: There are none.
    """
    if context.data.queries.group is None:
        lack = "hierarchical_group needs the groups of the tokens"
        raise Missing(lack, "Context(data=Data(Tokens(group=...)))")
    return context.data.queries.group.expand(x.shape[:2])


def _grid(tokens: int) -> tuple[int, int]:
    """Instances with up to the 18 parts of the paper: 17 joints, and one for the whole."""
    parts = max(size for size in range(1, 19) if tokens % size == 0)
    return tokens // parts, parts
