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
    is_training,
    narrowed,
    padding_of,
    visible,
    without_padding,
)
from coterie.attention.naive import naive_attention
from coterie.attention.spec import Spec

_SOURCE = "Beyond Uniform Query Distribution: Key-Driven Grouped Query Attention (arXiv 2408.08454)"


def allot(strengths: Tensor, heads: int) -> Tensor:
    """Query heads to key heads in proportion to strengths [.., Hk]: each one's key head [.., heads], in order.

    Where all strengths are 0, shares are equal. What rounding leaves over goes to the largest remainders; the released
    code rounds to the nearest and then mends the sum. Nothing waits for the device.
    """
    shares = torch.where(strengths.amax(-1, keepdim=True) > 0, strengths, torch.ones_like(strengths))
    wanted = heads * shares / shares.sum(-1, keepdim=True)
    whole = wanted.floor()
    rank = (wanted - whole).argsort(dim=-1, descending=True, stable=True).argsort(-1)
    counts = whole + (rank < heads - whole.sum(-1, keepdim=True))
    ends, places = counts.cumsum(-1), torch.arange(heads, device=counts.device)
    head_map: Tensor = (ends[..., None, :] <= places[:, None]).sum(-1)
    return head_map


def _key_norms(k: Tensor, context: Context) -> Tensor:
    """[B, Hk], the norm of all keys of a head, divided by the root of their number; padding is not read."""
    (k,) = without_padding(context, k.detach())
    segment = context.data.queries.segment
    count = k.shape[2] if segment is None else (segment >= 0).sum(-1).clamp(min=1).view(-1, 1)
    norms: Tensor = k.norm(dim=(2, 3)) / count**0.5
    return norms


@dataclass(frozen=True, slots=True)
class KeyDriven(Mechanism):
    """KDGQA. The released code sums the norms over the batch; here each sequence has groups of its own."""

    about: ClassVar[About] = About(
        name="kdgqa",
        title="KDGQA: key heads with longer keys serve more query heads, counted in every call",
        formula="n_g = H (|K_g| - min |K|) / sum of the same over g,  |K_g| the norm of all keys of a head",
        source=_SOURCE,
        cost="O(N^2 d + N d)",
    )

    def module(self, heads: Heads) -> nn.Module:
        return _KeyDriven()

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        found = []
        for b in range(len(q)):
            norms = [float(key.detach().square().sum().sqrt()) for key in k[b]]
            above = [norm - min(norms) for norm in norms]
            found.append(naive_attention(q[b], k[b], v[b], head_map=_allotted(above, q.shape[1]))[0])
        return torch.stack(found)


def _allotted(strengths: list[float], heads: int) -> list[int]:
    """`allot`, one key head after the other."""
    shares = strengths if max(strengths) > 0 else [1.0] * len(strengths)
    wanted = [heads * share / sum(shares) for share in shares]
    counts = [int(number) for number in wanted]
    while sum(counts) < heads:
        counts[max(range(len(counts)), key=lambda g: wanted[g] - counts[g])] += 1
    return [g for g, count in enumerate(counts) for _ in range(count)]


class _KeyDriven(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        check_not_causal(KeyDriven.about, context, "groups follow the keys of the whole sequence; dgqa has one")
        padding_of(KeyDriven.about, context)
        norms = _key_norms(k, context)
        above = norms - norms.amin(-1, keepdim=True)
        return _attend_mapped(q, k, v, allot(above, q.shape[1]), context)


def _attend_mapped(q: Tensor, k: Tensor, v: Tensor, head_map: Tensor, context: Context) -> Tensor:
    """By a head map of each sequence [B, Hq], or of all [Hq]."""
    k, v = (x.take_along_dim(head_map.view(-1, q.shape[1], 1, 1), 1) for x in (k, v))
    return attend(q, k, v, Spec(narrowed(None, context)), context.data)


@dataclass(frozen=True, slots=True)
class Dynamic(Mechanism):
    """DGQA. While training the groups change after a call: what a call computes never depends on its own keys.

    As in the released code shares are not stretched from least to most, as those of KDGQA are.
    """

    every: int = 300
    """Calls between two allotments."""
    decay: float | None = None
    """Of a moving average of the norms that then decide; None: how much they changed since the last allotment does."""

    about: ClassVar[About] = About(
        name="dgqa",
        title="DGQA: key heads whose keys change most serve more query heads, counted in training",
        formula="n_g = H s_g / sum s,  s_g = ||K_g| - |K_g| before| or a moving average of |K_g|, anew every w steps",
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
        counts = is_training(self, Dynamic.about)
        o = _attend_mapped(q, k, v, self.head_map, context)
        if counts:
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
        counts = is_training(self, Perturbed.about)
        self.calls += counts
        noise = _noise(self.options.seed + (self.calls if counts else 0), o)
        spread, mean = torch.std_mean(o, -1, correction=0, keepdim=True)
        return o - self.options.amount * (mean + spread * noise)


def _noise(seed: int, like: Tensor) -> Tensor:
    draw = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(like.shape, generator=draw, device=like.device).to(like.dtype)
