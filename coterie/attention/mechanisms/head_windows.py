"""Heads that see different keys: small windows beside averages, groups beside shifted groups, short beside long."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from coterie.attention.attend import attend
from coterie.attention.data import Data, Tokens
from coterie.attention.masks import Blocks, Causal, Roles, Window
from coterie.attention.mechanisms.base import (
    About,
    Context,
    Declaration,
    Heads,
    Mechanism,
    check_between,
    check_not_causal,
    grid_of,
    narrowed,
    padding_of,
    visible,
    without_padding,
)
from coterie.attention.naive import naive_attention
from coterie.attention.sdpa import sdpa_attention
from coterie.attention.spec import Spec


@dataclass(frozen=True, slots=True)
class HiLo(Mechanism):
    """The first heads look at detail in small windows, the others at the average of each window."""

    window: int = 2
    low: float = 0.9
    """Share of the heads that see averages alone."""

    reads = "grid"
    about: ClassVar[About] = About(
        name="hilo",
        title="HiLo: some heads attend in small windows, the others to the mean of each window",
        formula="first (1 - a) H heads: j in the s x s window of i;  others: keys and values averaged over each window",
        source="Fast Vision Transformers with HiLo Attention (arXiv 2205.13213)",
        cost="O((1 - a) N s^2 d + a N^2 d / s^2)",
    )

    def __post_init__(self) -> None:
        check_between(self, 1, math.inf, "window")
        check_between(self, 0, 1, "low")

    def module(self, heads: Heads) -> nn.Module:
        return _HiLo(self)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        rows, columns = grid_of(self.about, context, q.shape[2], 2)
        wide = -(-columns // self.window)
        of = torch.tensor([r // self.window * wide + c // self.window for r in range(rows) for c in range(columns)])
        hi, lo = self.split(q, k)
        o, _ = naive_attention(q, k, v, allowed=(of[:, None] == of).to(q.device))
        means = [torch.stack([x[:, :, of == w].mean(2) for w in range(int(of.max()) + 1)], 2) for x in (k, v)]
        coarse, _ = naive_attention(q, *means)
        return torch.cat([o[:, :hi], coarse[:, q.shape[1] - lo :]], 1)

    def split(self, q: Tensor, k: Tensor) -> tuple[int, int]:
        """Query heads of each kind: whole groups that share a key head."""
        lo = int(self.low * k.shape[1]) * (q.shape[1] // k.shape[1])
        return q.shape[1] - lo, lo

    def pairs(self, tokens: int) -> int:
        area = min(self.window**2, tokens)
        return math.ceil((1 - self.low) * tokens * area + self.low * tokens**2 / area)


class _HiLo(nn.Module):
    def __init__(self, options: HiLo) -> None:
        super().__init__()
        self.options = options

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        check_not_causal(HiLo.about, context, "means of windows hold what comes later; gna has one")
        grid, size = grid_of(HiLo.about, context, q.shape[2], 2), self.options.window
        padding, segment = padding_of(HiLo.about, context), context.data.queries.segment
        q, k, v = without_padding(context, q, k, v)
        hi, lo = self.options.split(q, k)
        keys = hi * k.shape[1] // q.shape[1]
        parts = []
        if hi:
            spec, data = Spec(narrowed(Blocks(size, shape=grid), context)), Data(Tokens(segment=segment))
            parts.append(attend(q[:, :hi], k[:, :keys], v[:, :keys], spec, data))
        if lo:
            means, values, allowed = _window_means(k[:, keys:], v[:, keys:], padding, grid, size)
            o = sdpa_attention(q[:, hi:], means, values, allowed=allowed, bias=None, causal=False, scale=None)
            parts.append(o)
        return torch.cat(parts, 1)


def _window_means(
    k: Tensor, v: Tensor, padding: Tensor | None, grid: tuple[int, ...], size: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Keys and values [B, H, N, D] as means of windows [B, H, windows, D], and which windows hold any token.

    Windows that a border or padding cuts are means of what they hold.
    """

    def pooled(x: Tensor) -> Tensor:
        plane = torch.unflatten(x.mT.flatten(0, 1), -1, grid)
        means: Tensor = avg_pool2d(plane, size, ceil_mode=True, count_include_pad=False)
        return means.flatten(-2).view(*x.shape[:2], x.shape[3], -1).mT

    if padding is None:
        return pooled(k), pooled(v), None
    share = pooled((~padding)[:, None, :, None].to(k.dtype))
    filled = torch.where(share > 0, share, 1)
    return pooled(k) / filled, pooled(v) / filled, share.mT > 0


@dataclass(frozen=True, slots=True)
class ShiftedSparse(Declaration):
    """S2 attention in groups, the second half of the heads shifted by half a group, and first tokens that all see.

    Groups do not wrap around: what the shift cuts off at the ends is a group for itself.
    """

    groups: int = 4
    sinks: int = 4

    about: ClassVar[About] = About(
        name="shifted_sparse",
        title="SinkLoRA: groups, shifted by half a group in half of the heads, and sinks that all see",
        formula="(i + s_h)//G = (j + s_h)//G  or  j < sinks,  G = ceil(N / g),  s_h = G//2 in the later half of heads",
        source="SinkLoRA (arXiv 2406.05678); LongLoRA (arXiv 2309.12307)",
        cost="O(N (N/g + s) d)",
    )

    def __post_init__(self) -> None:
        check_between(self, 1, math.inf, "groups")
        check_between(self, 0, math.inf, "sinks")

    @classmethod
    def small(cls) -> ShiftedSparse:
        return cls(sinks=2)

    def declare(self, q: Tensor, k: Tensor, context: Context) -> tuple[Spec, Data]:
        n, heads = q.shape[2], q.shape[1]
        size = -(-n // self.groups)
        shift = tuple(size // 2 if 2 * h >= heads else 0 for h in range(heads))
        tokens = replace(context.data.queries, role=_roles(n, self.sinks, q.device))
        return Spec(Blocks(size, shift=shift) | _ALL_SEE_SINKS), replace(context.data, queries=tokens)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        n, heads = q.shape[2], q.shape[1]
        size, at = -(-n // self.groups), torch.arange(n, device=q.device)
        allowed = torch.zeros(heads, n, n, dtype=torch.bool, device=q.device)
        for head in range(heads):
            group = (at + (size // 2 if head >= heads / 2 else 0)) // size
            allowed[head] = group[:, None] == group
        allowed[:, :, : self.sinks] = True
        return naive_attention(q, k, v, allowed=allowed & visible(q, context))[0]

    def pairs(self, tokens: int) -> int:
        return tokens * min(-(-tokens // self.groups) + self.sinks, tokens)


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # lists of what inference mode made are not kept
def _roles(tokens: int, sinks: int, device: torch.device) -> Tensor:
    """[N], the same tensor for all layers, so that lists of tiles are made once."""
    return (torch.arange(tokens, device=device) >= sinks).long()


_ALL_SEE_SINKS = Roles((("always", "never"), ("always", "never")))
"""Of role 0, sinks, and role 1."""


@dataclass(frozen=True, slots=True)
class LongShort(Declaration):
    """The first heads see a short band back, the others everything before; in causal order always."""

    window: int = 128
    short: float = 0.5
    """Share of the heads with the band."""

    about: ClassVar[About] = About(
        name="long_short",
        title="Long-short heads: some heads see a short band back, the others all before them",
        formula="j <= i,  and i - j < w in the first H_s heads",
        source="LS-attention (arXiv 2505.15548)",
        cost="O(N w d) in the short heads, O(N^2 d) in the long",
    )

    def __post_init__(self) -> None:
        check_between(self, 1, math.inf, "window")
        check_between(self, 0, 1, "short")

    @classmethod
    def small(cls) -> LongShort:
        return cls(window=5)

    def declare(self, q: Tensor, k: Tensor, context: Context) -> tuple[Spec, Data]:
        short = round(self.short * q.shape[1])
        left = tuple(self.window - 1 if h < short else None for h in range(q.shape[1]))
        return Spec(Causal() & Window(left=left)), context.data

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        at = torch.arange(q.shape[2], device=q.device)
        behind, short = at[:, None] - at, round(self.short * q.shape[1])
        long, _ = naive_attention(q, k, v, allowed=behind >= 0)
        near, _ = naive_attention(q, k, v, allowed=(behind >= 0) & (behind < self.window))
        return torch.cat([near[:, :short], long[:, short:]], 1)

    def pairs(self, tokens: int) -> int:
        dense = tokens * (tokens + 1) / 2
        return math.ceil(self.short * min(tokens * self.window, dense) + (1 - self.short) * dense)
