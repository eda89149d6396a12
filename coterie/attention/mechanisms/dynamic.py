"""Dynamic Mask Attention: values say how much their keys matter, and the best are kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from coterie.attention.attend import attend
from coterie.attention.data import Data, Tokens
from coterie.attention.masks import Causal, Emitted
from coterie.attention.mechanisms.base import About, Context, Heads, Mechanism, check_unpadded, visible
from coterie.attention.naive import naive_attention
from coterie.attention.spec import Spec

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
        check_unpadded(self.mechanism.about, context)
        bias = self.scale[:, None] * functional.softplus(self.weight @ v.transpose(1, 2).flatten(2).mT)
        # Of equal ones the later is the larger.
        rank = bias.detach().argsort(dim=-1, stable=True).argsort(-1)
        if not context.causal:
            kept = rank.topk(min(self.mechanism.window, q.shape[2])).indices.sort(-1).values
            return _attend(q, k, v, bias, kept[:, :, None], q.shape[2], Spec(key_bias=True), Data())
        lists, leaves = self._in_order(rank)
        size = self.mechanism.chunk
        at = torch.arange(lists.shape[2] * size, device=q.device).view(-1, size).repeat(k.shape[0] * k.shape[1], 1)
        # A key is there for queries before the one at which it leaves: Emitted, with time running backwards.
        queries = Tokens(position=at, time=-at, agent=torch.zeros_like(at))
        keys = Tokens(position=lists.flatten(0, 2), time=-leaves.flatten(0, 2), agent=torch.ones_like(lists[0, 0, 0]))
        spec = Spec(Causal() & Emitted(), key_bias=True)
        return _attend(q, k, v, bias, lists.clamp(min=0), size, spec, Data(queries, keys))

    def _in_order(self, rank: Tensor) -> tuple[Tensor, Tensor]:
        """The keys that some query of a chunk keeps, -1 for none, and the query at which each leaves: [B, Hk, C, M].

        They are those kept before the chunk, and its own: a key that has left never comes back. It leaves when `window`
        larger ones have come.
        """
        n, chunk, window = rank.shape[-1], self.mechanism.chunk, min(self.mechanism.window, rank.shape[-1])
        kept, lists, leaves = rank[..., :0], [], []
        for start in range(0, n, chunk):
            own = torch.arange(start, min(start + chunk, n), device=rank.device).expand(*rank.shape[:2], -1)
            listed = torch.cat([kept, own], -1)
            ranks, before, coming = (rank.gather(-1, x) for x in (listed, kept, own))
            larger = kept.shape[-1] - torch.searchsorted(before.sort(-1).values, ranks, right=True)
            larger = larger[..., None] + (coming[..., None, :] > ranks[..., None]).cumsum(-1, dtype=torch.int32)
            padding = (window + chunk - listed.shape[-1], 0)
            lists.append(functional.pad(listed, padding, value=-1))
            leaves.append(functional.pad(start + (larger < window).sum(-1), padding))
            kept = listed.gather(-1, ranks.topk(min(window, listed.shape[-1])).indices)
        return torch.stack(lists, 2), torch.stack(leaves, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, lists: Tensor, size: int, spec: Spec, data: Data) -> Tensor:
    """Attention of chunks of `size` queries to the keys listed for them, [B, Hk, C, M]."""
    batch, heads, chunks, listed = lists.shape
    rows = functional.pad(q, (0, 0, 0, chunks * size - q.shape[2]))
    rows = rows.view(batch, heads, -1, chunks, size, q.shape[-1]).transpose(2, 3).flatten(0, 2)
    index = lists.flatten(2)
    keys, values = (x.take_along_dim(index[..., None], 2).view(-1, 1, listed, x.shape[-1]) for x in (k, v))
    o = attend(rows, keys, values, spec, replace(data, key_bias=bias.gather(2, index).view(-1, 1, listed)))
    o = o.view(batch, heads, chunks, -1, size, v.shape[-1]).transpose(2, 3)
    return o.reshape(batch, q.shape[1], chunks * size, -1)[:, :, : q.shape[2]]
