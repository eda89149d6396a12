"""Grouped-query attention whose groups are of unequal size, after the norms of the keys; and one that is perturbed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from coterie.attention.attend import attend
from coterie.attention.mechanisms.base import (
    About,
    Context,
    Heads,
    Mechanism,
    check_between,
    check_not_causal,
    narrowed,
    visible,
)
from coterie.attention.naive import naive_attention
from coterie.attention.spec import Spec

_SOURCE = "Beyond Uniform Query Distribution: Key-Driven Grouped Query Attention (arXiv 2408.08454)"


def allot(strengths: Tensor, heads: int) -> Tensor:
    """Query heads to key heads in proportion to min-max strengths [.., Hk]: each one's key head [.., heads], in order.

    The weakest key head gets none, and equal strengths get equal shares. What rounding leaves over goes to the largest
    remainders. Nothing waits for the device.
    """
    above = strengths - strengths.amin(-1, keepdim=True)
    shares = torch.where(above.amax(-1, keepdim=True) > 0, above, torch.ones_like(above))
    wanted = heads * shares / shares.sum(-1, keepdim=True)
    whole = wanted.floor()
    rank = (wanted - whole).argsort(dim=-1, descending=True, stable=True).argsort(-1)
    counts = whole + (rank < heads - whole.sum(-1, keepdim=True))
    ends, places = counts.cumsum(-1), torch.arange(heads, device=counts.device)
    head_map: Tensor = (ends[..., None, :] <= places[:, None]).sum(-1)
    return head_map


def _key_norms(k: Tensor, context: Context) -> Tensor:
    """[B, Hk], the mean length of a key; padding is not read."""
    norms: Tensor = k.detach().norm(dim=-1)
    segment = context.data.queries.segment
    if segment is None:
        return norms.mean(2)
    kept = (segment >= 0).expand(len(k), -1)[:, None]
    return torch.where(kept, norms, 0).sum(2) / kept.sum(2)


@dataclass(frozen=True, slots=True)
class KeyDriven(Mechanism):
    """KDGQA."""

    about: ClassVar[About] = About(
        name="kdgqa",
        title="KDGQA: key heads with longer keys serve more query heads, counted in every call",
        formula="n_g = H (|K_g| - min |K|) / sum of the same over g,  |K_g| the mean |k_j| of a sequence",
        source=_SOURCE,
        cost="O(N^2 d + N d)",
    )

    def module(self, heads: Heads) -> nn.Module:
        return _KeyDriven()

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        found = []
        for b in range(len(q)):
            lengths = [float(key.detach().square().sum(-1).sqrt().mean()) for key in k[b]]
            found.append(naive_attention(q[b], k[b], v[b], head_map=_allotted(lengths, q.shape[1]))[0])
        return torch.stack(found)


def _allotted(lengths: list[float], heads: int) -> list[int]:
    """`allot`, one key head after the other."""
    least = min(lengths)
    shares = [length - least for length in lengths] if max(lengths) > least else [1.0] * len(lengths)
    wanted = [heads * share / sum(shares) for share in shares]
    counts = [int(number) for number in wanted]
    while sum(counts) < heads:
        counts[max(range(len(counts)), key=lambda g: wanted[g] - counts[g])] += 1
    return [g for g, count in enumerate(counts) for _ in range(count)]


class _KeyDriven(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        check_not_causal(KeyDriven.about, context, "groups follow the keys of the whole sequence; dgqa has one")
        return _attend_mapped(q, k, v, allot(_key_norms(k, context), q.shape[1]), context)


def _attend_mapped(q: Tensor, k: Tensor, v: Tensor, head_map: Tensor, context: Context) -> Tensor:
    """By a head map of each sequence [B, Hq], or of all [Hq]."""
    k, v = (x.take_along_dim(head_map.view(-1, q.shape[1], 1, 1), 1) for x in (k, v))
    return attend(q, k, v, Spec(narrowed(None, context)), context.data)


@dataclass(frozen=True, slots=True)
class Dynamic(Mechanism):
    """DGQA. While training the groups change after a call: what a call computes never depends on its own keys."""

    every: int = 300
    """Calls between two allotments."""
    decay: float | None = None
    """Of a moving average of the norms that then decide; None: how much they changed since the last allotment does."""

    about: ClassVar[About] = About(
        name="dgqa",
        title="DGQA: key heads whose keys change most serve more query heads, counted in training",
        formula="n_g as in kdgqa, of ||K_g| - |K_g| before| or of a moving average of |K_g|, anew every w steps",
        source=_SOURCE,
        cost="O(N^2 d + N d)",
    )

    def __post_init__(self) -> None:
        check_between(self, 1, math.inf, "every")
        check_between(self, 0, 1, "decay")

    def module(self, heads: Heads) -> nn.Module:
        return _Dynamic(self, heads)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        head_map = module.get_buffer("head_map")
        return naive_attention(q, k, v, head_map=head_map, allowed=visible(q, context))[0]


class _Dynamic(nn.Module):
    def __init__(self, options: Dynamic, heads: Heads) -> None:
        super().__init__()
        self.options = options
        self.calls: Tensor
        self.head_map: Tensor
        self.norms: Tensor
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("head_map", allot(torch.ones(heads.keys), heads.queries))
        self.register_buffer("norms", torch.zeros(heads.keys))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        o = _attend_mapped(q, k, v, self.head_map, context)
        if self.training:
            self._observe(_key_norms(k, context).mean(0).to(self.norms.dtype))
        return o

    def _observe(self, norms: Tensor) -> None:
        """Without a branch by the number of calls, for which the host would wait for the device."""
        self.calls += 1
        decay, is_due = self.options.decay, self.calls % self.options.every == 0
        if decay is None:
            strengths, kept = (norms - self.norms).abs(), torch.where(is_due, norms, self.norms)
        else:
            strengths = kept = torch.where(self.calls == 1, norms, decay * self.norms + (1 - decay) * norms)
        self.head_map = torch.where(is_due, allot(strengths, len(self.head_map)), self.head_map)
        self.norms = kept


@dataclass(frozen=True, slots=True)
class Perturbed(Mechanism):
    """PGQA. The paper's noise is Gaussian; the released code takes its mean and spread from rows of the output."""

    amount: float = 1.0
    seed: int = 0

    about: ClassVar[About] = About(
        name="pgqa",
        title="PGQA: grouped-query attention less Gaussian noise like each row of its output",
        formula="o_i = GQA(q, k, v)_i - a (mean_i + std_i z_i),  z_i ~ N(0, 1), mean and std of the row itself",
        source=_SOURCE,
        cost="O(N^2 d + N d)",
    )

    def module(self, heads: Heads) -> nn.Module:
        return _Perturbed(self)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        o, _ = naive_attention(q, k, v, allowed=visible(q, context))
        mean = o.sum(-1, keepdim=True) / o.shape[-1]
        spread = ((o - mean) ** 2).sum(-1, keepdim=True) / o.shape[-1]
        return o - self.amount * (mean + spread.sqrt() * _noise(self.seed, o))


class _Perturbed(nn.Module):
    """Draws anew in every call while training, and the same for every call after it."""

    def __init__(self, options: Perturbed) -> None:
        super().__init__()
        self.options = options
        self.calls = 0

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        o = attend(q, k, v, Spec(narrowed(None, context)), context.data)
        self.calls += self.training
        noise = _noise(self.options.seed + (self.calls if self.training else 0), o)
        spread, mean = torch.std_mean(o, -1, correction=0, keepdim=True)
        return o - self.options.amount * (mean + spread * noise)


def _noise(seed: int, like: Tensor) -> Tensor:
    draw = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(like.shape, generator=draw, device=like.device).to(like.dtype)
