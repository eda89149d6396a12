"""Attention on graphs: over groups of nodes that are equally far away."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from coterie.attention.attend import attend
from coterie.attention.data import Data
from coterie.attention.masks import Neighbors
from coterie.attention.mechanisms.base import (
    About,
    Context,
    Heads,
    Mechanism,
    Missing,
    check_between,
    narrowed,
    visible,
    without_padding,
)
from coterie.attention.spec import Spec


@dataclass(frozen=True, slots=True)
class HopWise(Mechanism):
    """A node attends to one mean for each number of hops: itself, its neighbours, their neighbours, and so on.

    Each number of hops has its own linear map of keys and values. `Data.hops` is the graph, negative where no path is.
    """

    hops: int = 3
    """K."""

    about: ClassVar[About] = About(
        name="hop_wise",
        title="HopFIR: one key for each number of hops, the mean of the nodes that far away",
        formula="k_ih = W_h mean of k_j over hops(i, j) = h,  v_ih likewise;  o_i = softmax over h <= K of q_i.k_ih",
        source="HopFIR: Hop-wise GraphFormer with Intragroup Joint Refinement for 3D Human Pose Estimation "
        "(arXiv 2302.14581)",
        cost="O(E d + N K d^2) for E pairs at most K hops apart",
    )

    def __post_init__(self) -> None:
        check_between(self, 0, math.inf, "hops")

    def module(self, heads: Heads) -> nn.Module:
        return _Hops(self, heads)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        assert isinstance(module, _Hops) and context.data.hops is not None
        hops = context.data.hops.expand(q.shape[0], -1, -1)
        at = torch.stack([(hops == h) & visible(q, context) for h in range(self.hops + 1)], 1).to(q.dtype)
        count = at.sum(-1)
        mean, shared = at / count.clamp(min=1)[..., None], q.shape[1] // k.shape[1]
        keys, values = (
            torch.einsum("bhij,bmjd,mhde->bmhie", mean, x, maps).repeat_interleave(shared, 1)
            for x, maps in ((k, module.key_maps), (v, module.value_maps))
        )
        logits = torch.einsum("bmie,bmhie->bmhi", q, keys) * q.shape[-1] ** -0.5
        weights = logits.masked_fill(count[:, None] == 0, -torch.inf).softmax(2).nan_to_num(0)
        return torch.einsum("bmhi,bmhie->bmie", weights, values)

    def pairs(self, tokens: int) -> int:
        return tokens * (self.hops + 1)

    def context(self, tokens: int, draw: torch.Generator, heads: Heads, batch: int) -> Context:
        """A ring of nodes, some cut off."""
        at = torch.arange(tokens)
        around = (at[:, None] - at).abs()
        hops = torch.minimum(around, tokens - around).clamp(max=self.hops + 1).to(torch.int8)
        return Context(data=Data(hops=hops.masked_fill(torch.rand(tokens, tokens, generator=draw) < 0.1, -1)))


class _Hops(nn.Module):
    """Means over the edges of the graph, then attention over neighbour lists of K + 1 slots."""

    def __init__(self, mechanism: HopWise, heads: Heads) -> None:
        super().__init__()
        self.mechanism = mechanism
        same = torch.eye(heads.width).expand(heads.keys, mechanism.hops + 1, -1, -1)
        self.key_maps, self.value_maps = nn.Parameter(same.clone()), nn.Parameter(same.clone())

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        if context.data.hops is None:
            raise Missing("hop_wise needs the hops between the tokens", "Context(data=Data(hops=[N, N]))")
        q, k, v = without_padding(context, q, k, v)
        batch, _, n, _ = q.shape
        slots = self.mechanism.hops + 1
        hops = context.data.hops.expand(batch, -1, -1)
        spec = Spec(narrowed(None, context))
        allowed = spec.allowed(spec.read(q, k, context.data))
        is_edge = (hops >= 0) & (hops < slots)
        edge = (is_edge if allowed is None else is_edge & allowed[:, 0]).nonzero()
        node, other = edge[:, 0] * n + edge[:, 1], edge[:, 0] * n + edge[:, 2]
        slot = node * slots + hops[edge.unbind(-1)]
        count = slot.bincount(minlength=batch * n * slots)
        means = []
        for x, maps in ((k, self.key_maps), (v, self.value_maps)):
            rows = x.transpose(1, 2).flatten(0, 1)
            total = rows.new_zeros(len(count), *rows.shape[1:]).index_add(0, slot, rows[other])
            mean = (total / count.clamp(min=1)[:, None, None]).view(batch, n, slots, *rows.shape[1:])
            means.append(torch.einsum("bihmd,mhde->bmihe", mean, maps).flatten(2, 3))
        index = torch.arange(n * slots, device=q.device).view(n, slots)
        lists = torch.where(count.view(batch, n, slots) > 0, index, -1)
        return attend(q, means[0], means[1], Spec(Neighbors()), Data(neighbors=lists))
