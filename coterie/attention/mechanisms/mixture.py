"""Mixture of heads: each token is served by some of the heads, and no other is computed for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from coterie.attention.attend import attend
from coterie.attention.data import Data, Tokens
from coterie.attention.mechanisms.auxiliary import add_loss
from coterie.attention.mechanisms.base import (
    About,
    Context,
    Heads,
    Mechanism,
    check_between,
    features_of,
    narrowed,
    visible,
)
from coterie.attention.naive import naive_attention, share_heads
from coterie.attention.spec import Spec


@dataclass(frozen=True, slots=True)
class MixtureOfHeads(Mechanism):
    """MoH, with a loss of its own (`auxiliary_losses`) that is least where all heads are picked equally often."""

    shared: float = 0.25
    """Share of the heads that serve every token."""
    active: float = 0.75
    """Share of the heads that serve a token, those among them."""
    load: float = 0.01
    """Weight of the loss."""

    reads = "features"
    about: ClassVar[About] = About(
        name="moh",
        title="Mixture of heads: a router picks heads for each token, and only those are computed",
        formula="o_i^h = g_ih sum_j p_ij^h v_j^h;  g = b_2 k top_k(softmax(W_r x)) / sum of these; for heads that all"
        " tokens share b_1 n softmax(W_s x);  b = 2 softmax(W_b x)",
        source="MoH: Multi-Head Attention as Mixture-of-Head Attention (arXiv 2410.11842)",
        cost="O(a N^2 d + N C H) with a share a of the heads for each token",
    )

    def __post_init__(self) -> None:
        check_between(self, 0, 1, "shared", "active")
        check_between(self, 0, math.inf, "load")

    def module(self, heads: Heads) -> nn.Module:
        return _MixtureOfHeads(self, heads)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        x = features_of(self.about, context)
        routed, shared, balance = ((x @ module.get_parameter(f"{name}.weight").T).softmax(-1) for name in _ROUTERS)
        count = self.routed(q.shape[1])
        kept = routed * (routed >= routed.topk(count, -1).values[..., -1:])
        own = 2 * balance[..., :1] * shared * shared.shape[-1]
        others = 2 * balance[..., 1:] * kept / kept.sum(-1, keepdim=True) * count
        o, _ = naive_attention(q, k, v, allowed=visible(q, context))
        return o * torch.cat([own, others], -1).mT[..., None]

    def pairs(self, tokens: int) -> int:
        return int(self.active * tokens**2)

    def routed(self, heads: int) -> int:
        """How many of the routed heads serve a token."""
        return round(self.active * heads) - round(self.shared * heads)


_ROUTERS = ("routed", "shared", "balance")


class _MixtureOfHeads(nn.Module):
    def __init__(self, options: MixtureOfHeads, heads: Heads) -> None:
        super().__init__()
        self.load = options.load
        shared, self.count = round(options.shared * heads.queries), options.routed(heads.queries)
        if shared < 1 or self.count < 1 or shared + self.count > heads.queries:
            raise ValueError(
                f"moh has {heads.queries} heads, of which {shared} serve every token and {self.count} are picked: "
                "expected at least 1 of each, and no more than there are"
            )
        sizes = (heads.queries - shared, shared, 2)
        self.routed, self.shared, self.balance = (nn.Linear(heads.features, size, bias=False) for size in sizes)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        gates, picked = self._route(features_of(MixtureOfHeads.about, context), context.data.queries.segment)
        k, v = (share_heads(x, q.shape[1]) for x in (k, v))
        shared = q.shape[1] - picked.shape[1]
        own = attend(q[:, :shared], k[:, :shared], v[:, :shared], Spec(narrowed(None, context)), context.data)
        others = _attend_picked(q[:, shared:], k[:, shared:], v[:, shared:], picked, context)
        return torch.cat([own, others], 1) * gates[..., None]

    def _route(self, x: Tensor, segment: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The factor of each head [B, Hq, N], and which of the routed ones are picked, bool [B, E, N]."""
        chances, own, balance = self.routed(x).softmax(-1), self.shared(x).softmax(-1), 2 * self.balance(x).softmax(-1)
        best = chances.topk(self.count, -1)
        picked = torch.zeros_like(chances, dtype=torch.bool).scatter(-1, best.indices, True)
        routed, size = chances * picked, chances.shape[-1]
        routed = routed / routed.sum(-1, keepdim=True) * self.count
        shares, rates = (_mean(part.to(x.dtype), segment) for part in (chances, picked))
        add_loss(self.load * (shares * rates).mean() * size**2)
        gates = torch.cat([balance[..., :1] * own * own.shape[-1], balance[..., 1:] * routed], -1)
        return gates.mT, picked.mT


def _mean(x: Tensor, segment: Tensor | None) -> Tensor:
    """Of [B, N, E] over all tokens but padding, [E]."""
    if segment is None:
        return x.mean((0, 1))
    there = (segment >= 0).expand(x.shape[:2])[..., None]
    return x.masked_fill(~there, 0).sum((0, 1)) / there.sum().clamp(min=1)


def _attend_picked(q: Tensor, k: Tensor, v: Tensor, picked: Tensor, context: Context) -> Tensor:
    """Each head of its picked queries alone, the heads of a batch as one batch; other rows are zero or never read.

    Heads are filled up to the longest, which an even load keeps short. To know it, the host waits for the device.
    """
    batch, heads, n, _ = q.shape
    counts = picked.sum(-1)
    order = picked.byte().argsort(dim=-1, descending=True, stable=True)[..., : int(counts.max())].flatten(0, 1)
    rows = order[..., None]
    chosen, k, v = q.flatten(0, 1).take_along_dim(rows, 1)[:, None], k.flatten(0, 1)[:, None], v.flatten(0, 1)[:, None]

    def spread(field: Tensor) -> Tensor:
        return field.expand(batch, n).repeat_interleave(heads, 0)

    tokens = context.data.queries
    position = torch.arange(n, device=q.device) if tokens.position is None else tokens.position
    keys = Tokens(spread(position), None if tokens.segment is None else spread(tokens.segment))
    queries = Tokens(
        *(None if field is None else field.take_along_dim(order, 1) for field in (keys.position, keys.segment))
    )
    o = attend(chosen, k, v, Spec(narrowed(None, context)), Data(queries, keys))[:, 0]
    filled = v.new_zeros(batch * heads, n, v.shape[-1]).scatter(1, rows.expand_as(o), o)
    return torch.unflatten(filled, 0, (batch, heads))
