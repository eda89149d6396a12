"""Tokens meet where they are alike: Routing Transformer and CATANet, by centres that follow the tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from coterie.attention.attend import attend
from coterie.attention.data import Data, Tokens
from coterie.attention.masks import Segments
from coterie.attention.mechanisms.auxiliary import add_loss
from coterie.attention.mechanisms.base import (
    About,
    Context,
    Heads,
    Mechanism,
    check_between,
    check_not_causal,
    features_of,
    is_training,
    padding_of,
    without_padding,
)
from coterie.attention.mechanisms.gathering import gather_tokens
from coterie.attention.naive import naive_attention, share_heads
from coterie.attention.spec import Spec

_ALL_TOKENS = "which tokens meet depends on all of them; native_sparse picks by query, and has one"


@dataclass(frozen=True, slots=True)
class Routing(Mechanism):
    """Each cluster takes as many queries and as many keys, those nearest to its centre, which attend among themselves.

    A query that several clusters take gets the mean, one that none takes gets 0. Centres follow the tokens while
    training, and tokens their centres, by a loss of their own (`auxiliary_losses`). The published causal form hides
    later keys inside a cluster, but what a cluster takes depends on all tokens; so there is none here. Clusters take
    no padding, and are smaller in shorter sequences. Inside a cluster queries and keys keep their lengths.
    """

    clusters: int = 64
    size: int | None = None
    """Queries and keys of a cluster; by default tokens / clusters, rounded up."""
    decay: float = 0.999
    """Of the moving average that the centres are."""
    commitment: float = 1e-4
    """Weight of the mean squared distance of queries and keys from their centre."""

    about: ClassVar[About] = About(
        name="routing",
        title="Routing Transformer: attention inside clusters of equal size, by learned centres",
        formula="Q_c, K_c: the w queries and keys of largest cosine to centre c;  o_i = mean over c with i in Q_c of\n"
        "softmax over j in K_c of q_i.k_j / sqrt(d), v_j",
        source="Efficient Content-Based Sparse Attention with Routing Transformers (arXiv 2003.05997)",
        cost="O(N (N / C + C) d), N^1.5 d with C = sqrt(N) clusters",
    )

    def __post_init__(self) -> None:
        check_between(self, 1, math.inf, "clusters", "size")
        check_between(self, 0, 1, "decay")

    @classmethod
    def small(cls) -> Self:
        return cls(clusters=5, size=9)

    def module(self, heads: Heads) -> nn.Module:
        return _Routing(self, heads)

    def taken(self, tokens: int) -> int:
        """Queries, and keys, of a cluster."""
        return min(tokens, self.size or -(-tokens // self.clusters))

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        k, v = (share_heads(x, q.shape[1]) for x in (k, v))
        means = module.get_buffer("centres.means")
        means = means.repeat_interleave(q.shape[1] // means.shape[0], 0)
        members = []
        for x in (q, k):
            cosine = torch.einsum("bhnd,hcd->bhcn", x / x.norm(dim=-1, keepdim=True), means)
            best = cosine.argsort(-1, descending=True)[..., : self.taken(q.shape[2])]
            members.append(torch.zeros_like(cosine, dtype=torch.bool).scatter(-1, best, True))
        o = torch.zeros_like(q)
        for c in range(self.clusters):
            of_queries, of_keys = (x[:, :, c] for x in members)
            o = o + naive_attention(q, k, v, allowed=of_queries[..., None] & of_keys[..., None, :])[0]
        return o / members[0].sum(2).clamp(min=1)[..., None]

    def pairs(self, tokens: int) -> int:
        return self.clusters * self.taken(tokens) ** 2


class _Routing(nn.Module):
    """The clusters as a batch of dense attentions."""

    def __init__(self, mechanism: Routing, heads: Heads) -> None:
        super().__init__()
        self.mechanism = mechanism
        self.centres = Centres(heads.keys, mechanism.clusters, heads.width, mechanism.decay)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        check_not_causal(self.mechanism.about, context, _ALL_TOKENS)
        padding = padding_of(self.mechanism.about, context)
        q, k, v = without_padding(context, q, k, v)
        batch, heads, n, _ = q.shape
        units = [functional.normalize(x, dim=-1) for x in (q, k)]
        asking, asked = (self._nearest(unit, padding) for unit in units)
        left = self._left(asking.shape[-1], padding)
        rows, keys, values = _gather(q, asking), _gather(k, asked), _gather(v, asked)
        spec, data, one = Spec(), Data(), torch.ones_like(asking, dtype=q.dtype)
        if left is not None:
            segment = -left.long().expand(batch, -1).repeat_interleave(asking.shape[2], 0)
            spec, data, one = Spec(Segments()), Data(Tokens(segment=segment)), one * ~left[:, None, None]
        o = attend(rows, keys, values, spec, data)
        o = torch.unflatten(o, 0, (batch, -1)).transpose(1, 2).flatten(2, 3)
        self._observe(torch.cat([units[0].reshape(batch, k.shape[1], -1, q.shape[-1]), units[1]], 2))
        at = asking.flatten(2)
        total = torch.zeros_like(q).scatter_add(2, at[..., None].expand_as(o), o)
        count = q.new_zeros(batch, heads, n).scatter_add(2, at, one.flatten(2))
        return total / count.clamp(min=1)[..., None]

    @torch.no_grad()
    def _nearest(self, unit: Tensor, padding: Tensor | None) -> Tensor:
        """Tokens of each cluster [B, H, C, w], the nearest first."""
        means = self.centres.means.repeat_interleave(unit.shape[1] // len(self.centres.means), 0)
        cosine = means @ unit.mT
        if padding is not None:
            cosine = cosine.masked_fill(padding[:, None, None], -torch.inf)
        return cosine.topk(self.mechanism.taken(unit.shape[2])).indices

    def _left(self, size: int, padding: Tensor | None) -> Tensor | None:
        """Which places of its clusters a sequence leaves empty, for it is shorter than others: bool [1 or B, w]."""
        if padding is None:
            return None
        options, lengths = self.mechanism, (~padding).sum(-1, keepdim=True)
        taken = lengths.clamp(max=options.size or -(-lengths // options.clusters))
        return torch.arange(size, device=padding.device) >= taken

    def _observe(self, unit: Tensor) -> None:
        means = self.centres.means
        own = means.expand(len(unit), -1, -1, -1).take_along_dim(nearest(unit, means)[..., None], 2)
        is_token = (unit != 0).any(-1)  # Padding is zero, and no direction.
        away = (unit - own).square().mean(-1) * is_token
        add_loss(away.sum() / is_token.sum().clamp(min=1) * self.mechanism.commitment)
        if is_training(self, Routing.about):
            self.centres.follow(kmeans(unit, means))


def _gather(x: Tensor, index: Tensor) -> Tensor:
    """Tokens [B, H, C, w] of [B, H, N, D], clusters as a batch: [B * C, H, w, D]."""
    gathered = gather_tokens(x, index.flatten(2))
    return torch.unflatten(gathered, 2, index.shape[2:]).transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True, slots=True)
class TokenAggregation(Mechanism):
    """Tokens sorted by their nearest centre attend to their group and the next, and to all centres; the two are added.

    While training the centres are those of the batch, found from the kept ones in a few steps; then the kept ones
    follow them. The released code fills the last group up with tokens mirrored; here it is shorter. Padding stands
    behind all tokens in that order.
    """

    centres: int = 16
    group: int = 256
    """Tokens of a group. The paper's layers have 16, 32, 64 and 128 centres, and groups of 256, 128, 64 and 32."""
    steps: int = 5
    """Of k-means in each call while training."""
    decay: float = 0.999
    """Of the moving average that the kept centres are."""

    reads = "features"
    about: ClassVar[About] = About(
        name="token_aggregation",
        title="CATANet: tokens sorted by likeness attend to neighbouring groups, and to centres",
        formula="o_i = softmax over groups g(i), g(i) + 1 of q_i.k_j / sqrt(d), v_j + softmax over centres c of\n"
        "q_i.(W_k c) / sqrt(d), W_v c;  g(i) = place of i in the order of nearest centres / group",
        source="CATANet: Efficient Content-Aware Token Aggregation for Lightweight Image Super-Resolution "
        "(arXiv 2503.06896)",
        cost="O(N (2 group + centres) d)",
    )

    def __post_init__(self) -> None:
        check_between(self, 1, math.inf, "centres", "group", "steps")
        check_between(self, 0, 1, "decay")

    @classmethod
    def small(cls) -> Self:
        return cls(centres=4, group=8)

    def module(self, heads: Heads) -> nn.Module:
        return _TokenAggregation(self, heads)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        unit = functional.normalize(features_of(self.about, context), dim=-1)
        centres = module.get_buffer("centres.means")[0]
        for _ in range(self.steps if module.training else 0):
            members = functional.one_hot((unit @ functional.normalize(centres, dim=-1).T).argmax(-1), self.centres)
            sums = torch.einsum("bnm,bnc->mc", members.to(unit.dtype), unit)
            centres = torch.where(members.sum((0, 1))[:, None] > 0, functional.normalize(sums, dim=-1), centres)
        nearest = (unit @ functional.normalize(centres, dim=-1).T).argmax(-1)
        group = nearest.argsort(dim=-1, stable=True).argsort(-1) // self.group
        ahead = group[:, None] - group[:, :, None]
        o, _ = naive_attention(q, k, v, allowed=((ahead == 0) | (ahead == 1))[:, None])
        keys, values = (
            (centres @ module.get_parameter(f"{name}.weight").T).view(self.centres, -1, q.shape[-1]).transpose(0, 1)
            for name in ("key", "value")
        )
        return o + naive_attention(q, keys, values)[0]

    def pairs(self, tokens: int) -> int:
        return tokens * (min(tokens, 2 * self.group) + self.centres)


class _TokenAggregation(nn.Module):
    def __init__(self, mechanism: TokenAggregation, heads: Heads) -> None:
        super().__init__()
        self.mechanism = mechanism
        self.centres = Centres(1, mechanism.centres, heads.features, mechanism.decay)
        self.key, self.value = (nn.Linear(heads.features, heads.keys * heads.width, bias=False) for _ in "kv")

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        check_not_causal(self.mechanism.about, context, _ALL_TOKENS)
        padding = padding_of(self.mechanism.about, context)
        q, k, v = without_padding(context, q, k, v)
        unit = functional.normalize(features_of(self.mechanism.about, context), dim=-1)[:, None]
        centres = self._centres(unit)
        own, length = nearest(unit, centres)[:, 0], torch.tensor([q.shape[2]], device=q.device)
        if padding is not None:
            own, length = own.masked_fill(padding, self.mechanism.centres), (~padding).sum(-1)
        order = own.argsort(dim=-1, stable=True)[:, None, :, None]
        o = self._grouped(length, *(x.take_along_dim(order, 2) for x in (q, k, v)))
        o = torch.zeros_like(o).scatter(2, order.expand_as(o), o)
        keys, values = (
            maps(centres[0]).view(len(centres[0]), -1, q.shape[-1]).transpose(0, 1).expand(len(q), -1, -1, -1)
            for maps in (self.key, self.value)
        )
        return o + attend(q, keys, values)

    def _centres(self, unit: Tensor) -> Tensor:
        """[1, M, C]. Of the steps only the last has a gradient."""
        centres = self.centres.means
        if not is_training(self, TokenAggregation.about):
            return centres
        for _ in range(self.mechanism.steps - 1):
            centres = kmeans(unit.detach(), centres)
        centres = kmeans(unit, centres)
        self.centres.follow(centres.detach())
        return centres

    def _grouped(self, length: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Of so many tokens [1 or B] each group attends to itself and the next, as a batch of groups."""
        batch, _, n, _ = q.shape
        size = min(self.mechanism.group, n)
        missing = -n % size
        rows = torch.unflatten(functional.pad(q, (0, 0, 0, missing)), 2, (-1, size)).transpose(1, 2).flatten(0, 1)
        keys, values = (
            functional.pad(x, (0, 0, 0, missing + size)).unfold(2, 2 * size, size).permute(0, 2, 1, 4, 3).flatten(0, 1)
            for x in (k, v)
        )
        at = torch.arange(n + missing + size, device=q.device).unfold(0, 2 * size, size)
        missed = (at >= length[:, None, None]).expand(batch, -1, -1).flatten(0, 1)
        data = Data(Tokens(segment=torch.zeros_like(at[:1, :size])), Tokens(segment=-missed.long()))
        o = attend(rows, keys, values, Spec(Segments()), data)
        return torch.unflatten(o, 0, (batch, -1)).transpose(1, 2).flatten(2, 3)[:, :, :n]


class Centres(nn.Module):
    """Directions in the middle of what is near them, by a moving average that begins with the first batch."""

    def __init__(self, heads: int, count: int, width: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.means: Tensor
        self.started: Tensor
        self.register_buffer("means", functional.normalize(torch.randn(heads, count, width), dim=-1))
        self.register_buffer("started", torch.zeros(()))

    @torch.no_grad()
    def follow(self, means: Tensor) -> None:
        """Move towards these."""
        self.means.lerp_(means.to(self.means.dtype), 1 - self.decay * self.started)
        self.started.fill_(1)


@torch.no_grad()
def nearest(unit: Tensor, means: Tensor) -> Tensor:
    """The centre of largest cosine [B, H, N], for unit vectors [B, H, N, D] and centres [H, C, D]."""
    return (unit @ functional.normalize(means, dim=-1).mT).argmax(-1)


def kmeans(unit: Tensor, means: Tensor) -> Tensor:
    """One step of k-means on the sphere, over the batch: [H, C, D]. Centres without a token stay; zeros are none."""
    rows = unit.transpose(0, 1).flatten(1, 2)
    at = nearest(unit, means).transpose(0, 1).flatten(1)[..., None]
    total = torch.zeros_like(means, dtype=rows.dtype).scatter_add(1, at.expand_as(rows), rows)
    return torch.where((total != 0).any(-1, keepdim=True), functional.normalize(total, dim=-1), means.to(rows.dtype))
