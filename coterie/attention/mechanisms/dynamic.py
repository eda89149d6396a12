"""Dynamic Mask Attention: values say how much their keys matter, and the best are kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from coterie.attention.mechanisms.base import (
    About,
    Context,
    Heads,
    Mechanism,
    check_between,
    padding_of,
    visible,
    without_padding,
)
from coterie.attention.mechanisms.gathering import gather_tokens
from coterie.attention.naive import naive_attention
from coterie.attention.sdpa import sdpa_attention
from coterie.attention.spec import widened

_CHUNK = 32
"""Fewest queries that share a list of keys in causal order."""


@dataclass(frozen=True, slots=True)
class DynamicMask(Mechanism):
    """Each key head keeps the keys of largest bias; in causal order, of those up to each query.

    Which keys are kept has no gradient, their bias has one. Of equal biases the later keys are kept, so that a new
    layer, whose biases are 0, is a sliding window. The bias is the released code's; the paper has exp of it.
    """

    window: int = 2048
    """Keys that are kept."""

    about: ClassVar[About] = About(
        name="dynamic_mask",
        title="Dynamic Mask Attention: the keys whose values say so are kept, with a bias",
        formula="b_j = a softplus(w v_j);  o_i = softmax over the largest b_j, j <= i, of q_i.k_j / sqrt(d) + b_j",
        source="Trainable Dynamic Mask Sparse Attention (arXiv 2508.02124)",
        cost="O(N window d + N log N)",
    )

    def __post_init__(self) -> None:
        check_between(self, 1, math.inf, "window")

    @classmethod
    def small(cls) -> Self:
        return cls(window=6)

    def module(self, heads: Heads) -> nn.Module:
        return _DynamicMask(self, heads)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        weight, scale = module.get_parameter("weight"), module.get_parameter("scale")
        bias = scale[:, None] * functional.softplus(weight @ v.transpose(1, 2).flatten(2).mT)
        at, seen = torch.arange(q.shape[2], device=q.device), visible(q, context)
        mine, other = bias[..., :, None], bias[..., None, :]
        is_larger = (other > mine) | ((other == mine) & (at > at[:, None]))
        larger = torch.einsum("bhji,ti->bhtj", is_larger.to(q.dtype), seen.to(q.dtype))
        shared = q.shape[1] // k.shape[1]
        allowed = (seen & (larger < self.window)).repeat_interleave(shared, 1)
        return naive_attention(q, k, v, allowed=allowed, bias=bias.repeat_interleave(shared, 1)[..., None, :])[0]

    def pairs(self, tokens: int) -> int:
        return tokens * min(tokens, self.window + self.chunk)

    @property
    def chunk(self) -> int:
        """Queries that share a list of keys in causal order."""
        return max(_CHUNK, self.window // 8)


class _DynamicMask(nn.Module):
    """Keys and values gathered once for each key head, or for each chunk of its queries."""

    def __init__(self, mechanism: DynamicMask, heads: Heads) -> None:
        super().__init__()
        self.mechanism = mechanism
        width = heads.keys * heads.width
        self.weight = nn.Parameter(torch.randn(heads.keys, width) * width**-0.5)
        self.scale = nn.Parameter(torch.zeros(heads.keys))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        padding = padding_of(self.mechanism.about, context)
        q, k, v = without_padding(context, q, k, v)
        bias = self.scale[:, None] * functional.softplus(self.weight @ v.transpose(1, 2).flatten(2).mT)
        if padding is not None:
            bias = bias.masked_fill(padding[:, None], -torch.inf)
        # Of equal ones the later is the larger.
        rank = bias.detach().argsort(dim=-1, stable=True).argsort(-1)
        if not context.causal:
            kept = rank.topk(min(self.mechanism.window, q.shape[2])).indices
            return _attend(q, k, v, bias, kept, None)
        found: list[Tensor] = []
        kept = rank[..., :0]
        for rows in torch.split(q, self.mechanism.chunk, 2):
            # What the chunk's queries keep was kept before, or is its own: a key that has left never comes back.
            start, size = sum(o.shape[2] for o in found), rows.shape[2]
            own = torch.arange(start, start + size, device=q.device).expand(*rank.shape[:2], -1)
            listed = torch.cat([kept, own], -1)
            ranks = rank.gather(-1, listed)
            found.append(_attend(rows, k, v, bias, listed, self._keeps(ranks, size)))
            kept = listed.gather(-1, ranks.topk(min(self.mechanism.window, listed.shape[-1])).indices)
        return torch.cat(found, 2)

    def _keeps(self, ranks: Tensor, size: int) -> Tensor:
        """Which of these keys each of the last `size` tokens keeps, bool [B, Hk, size, M].

        A key has left when `window` larger ones have come.
        """
        before, own = ranks[..., :-size], ranks[..., -size:]
        larger = before.shape[-1] - torch.searchsorted(before.sort(-1).values, ranks, right=True)
        room = (self.mechanism.window - larger)[..., None, :].int()
        coming = (own[..., :, None] > ranks[..., None, :]).cumsum(-2, dtype=torch.int32)
        return (coming < room).tril(before.shape[-1])


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, listed: Tensor, keeps: Tensor | None) -> Tensor:
    """Attention to the keys listed for each key head, [B, Hk, M]."""
    shared = q.shape[1] // k.shape[1]
    keys, values = (widened(gather_tokens(x, listed)) for x in (k, v))
    bias = widened(bias.gather(2, listed)[:, :, None])
    if keeps is not None:
        bias = torch.where(keeps, bias, -torch.inf)
    bias = bias.repeat_interleave(shared, 1)
    allowed = bias > -torch.inf  # Behind padding a query has none, which the softmax alone has no gradient for.
    bias = bias.masked_fill(~allowed, 0)
    o = sdpa_attention(widened(q), keys, values, allowed=allowed, bias=bias, causal=False, scale=None)
    return o.to(v.dtype)
