"""Pyramid Sparse Attention: keys in full where they matter, means of them where they matter less."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from coterie.attention.mechanisms.base import (
    About,
    Context,
    Heads,
    Mechanism,
    check_between,
    check_not_causal,
    lengths_of,
    without_padding,
)
from coterie.attention.mechanisms.gathering import gather_tokens
from coterie.attention.naive import share_heads
from coterie.attention.sdpa import sdpa_attention
from coterie.attention.spec import widened

_LEVELS = (1, 2, 4, 8)
"""Keys that one pooled key stands for."""


@dataclass(frozen=True, slots=True)
class PyramidSparse(Mechanism):
    """Blocks of queries see each block of keys at a level, or not at all, by how much attention a sample says it gets.

    A mean of p keys has log p added to its logit, so that it weighs as much as p equal keys. Levels have no gradient.
    The released code also rounds the number of blocks of each level to whole tiles of its kernel, and by importance has
    6 % of them in full at least. Its causal form picks levels for a block of queries by all of these, so that a query
    sees by what comes after it; there is none here. Padding stands behind all tokens.
    """

    rows: int = 128
    """Queries in a block."""
    block: int = 64
    """Keys in a block, a multiple of 8."""
    bounds: tuple[float, float, float, float] = (0.05, 0.15, 0.25, 0.5)
    """Blocks in order of importance: up to these shares they have levels 1, 2, 4 and 8, the rest is skipped."""
    share_of: Literal["blocks", "importance"] = "blocks"
    """What the bounds are shares of: the number of blocks (topk), or the sum of their importance (threshold)."""
    sample: float = 0.25
    """Share of the tokens of each block by which importance is estimated."""
    alike: tuple[float, float, float] | None = None
    """For levels 2, 4 and 8, the mean cosine of keys 1, 3 and 7 places apart above which a block may have it."""
    seed: int = 0
    """Of the sample, which is the same in every block."""

    about: ClassVar[About] = About(
        name="pyramid_sparse",
        title="Pyramid Sparse Attention: blocks of keys in full, as means of 2, 4 or 8, or not at all",
        formula="o_i = softmax over pooled keys c of q_i.k_c / sqrt(d) + log |c|,  k_c = mean of |c| keys;\n"
        "|c| by the rank of its block in a sample's attention, summed over blocks of queries and keys",
        source="PSA: Pyramid Sparse Attention for Efficient Video Understanding and Generation (arXiv 2512.04025)",
        cost="O(N M d + (sample N)^2 d), M = N sum of share / level, 0.16 N by default",
    )

    def __post_init__(self) -> None:
        check_between(self, 1, math.inf, "rows", "block")
        if self.block % _LEVELS[-1]:
            raise ValueError(f"pyramid_sparse: block is {self.block}, expected a multiple of {_LEVELS[-1]}")
        if list(self.bounds) != sorted(self.bounds) or self.bounds[-1] <= 0:
            raise ValueError(f"pyramid_sparse: bounds are {self.bounds}, expected rising shares, the last above 0")

    @classmethod
    def small(cls) -> Self:
        return cls(rows=8, block=8, bounds=(0.2, 0.4, 0.6, 0.8))

    def module(self, heads: Heads) -> nn.Module:
        return _PyramidSparse(self)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        k, v = (share_heads(x, q.shape[1]) for x in (k, v))
        n, o = q.shape[2], torch.zeros_like(q)
        starts, scale = range(0, n, self.block), q.shape[-1] ** -0.5
        sampled = [[min(start + at, n - 1) for at in self.sampled(self.block)] for start in starts]
        for b, h in torch.cartesian_prod(torch.arange(q.shape[0]), torch.arange(q.shape[1])).tolist():
            for top in range(0, n, self.rows):
                asking = [min(top + at, n - 1) for at in self.sampled(self.rows)]
                chances = (q[b, h, asking] @ k[b, h, sum(sampled, [])].T * scale).softmax(-1).sum(0).detach()
                importance = chances.view(len(starts), -1).sum(1)
                order, before, keys, values, sizes = importance.argsort(descending=True).tolist(), 0.0, [], [], []
                for place, at in enumerate(order):
                    passed = place / len(order) if self.share_of == "blocks" else before
                    before += float(importance[at] / importance.sum())
                    level = next((p for p, bound in zip(_LEVELS, self.bounds, strict=True) if passed < bound), 0)
                    level = min(level, self._cap(k[b, h, starts[at] : starts[at] + self.block].detach()))
                    for first in range(starts[at], min(starts[at] + self.block, n), level) if level else ():
                        part = slice(first, min(first + level, starts[at] + self.block))
                        keys.append(k[b, h, part].mean(0))
                        values.append(v[b, h, part].mean(0))
                        sizes.append(len(k[b, h, part]))
                logits = q[b, h, top : top + self.rows] @ torch.stack(keys).T * scale + q.new_tensor(sizes).log()
                o[b, h, top : top + self.rows] = logits.softmax(-1) @ torch.stack(values)
        return o

    def _cap(self, keys: Tensor) -> int:
        """The highest level that the similarity of a block's keys allows."""
        keys = torch.cat([keys, keys[-1:].expand(self.block - len(keys), -1)])
        allowed = [1]
        for level, bound in zip(_LEVELS[1:], self.alike or (-2.0,) * 3, strict=True):
            cosine = functional.cosine_similarity(keys[::level], keys[level - 1 :: level], dim=-1).mean()
            allowed += [level] if float(cosine) > bound else []
        return max(allowed)

    def sampled(self, size: int) -> list[int]:
        """Places of the sample in a block of `size` tokens."""
        order = torch.randperm(size, generator=torch.Generator().manual_seed(self.seed))
        return order[: max(1, int(size * self.sample))].tolist()

    def pairs(self, tokens: int) -> int:
        shares = zip((0.0, *self.bounds[:-1]), self.bounds, _LEVELS, strict=True)
        kept = sum((high - low) / level for low, high, level in shares) if self.share_of == "blocks" else 1
        return int(tokens**2 * (kept + self.sample**2))


class _PyramidSparse(nn.Module):
    """All levels of the keys in one buffer, from which each block of queries gathers what it sees.

    It does so by units: one is a block at the highest level, at lower levels a block is several.
    """

    def __init__(self, mechanism: PyramidSparse) -> None:
        super().__init__()
        self.mechanism = mechanism

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        options, (batch, heads, n, width) = self.mechanism, q.shape
        check_not_causal(options.about, context, "levels are picked for blocks of queries; native_sparse has one")
        lengths = lengths_of(options.about, context)
        if lengths is None:
            lengths = torch.tensor([n], device=q.device)
        q, k, v = without_padding(context, q, k, v)
        unit = options.block // _LEVELS[-1]
        lists = self._units(self._levels(q, k, lengths))
        at = (lists[..., None] * unit + torch.arange(unit, device=q.device)).flatten(3)
        is_token = torch.arange(n, device=q.device) < lengths[:, None]
        count = _pyramid(is_token[:, None, :, None].to(k.dtype), options.block)
        flat = at.clamp(min=0).flatten(2)
        size = torch.where(at < 0, 0, count[..., 0].take_along_dim(flat, 2).view_as(at)).view(-1, 1, 1, at.shape[3])
        keys, values = (
            gather_tokens(share_heads(_pyramid(x, options.block) / count.clamp(min=1), heads), flat).view(
                -1, 1, at.shape[3], x.shape[3]
            )
            for x in (k, v)
        )
        rows = functional.pad(q, (0, 0, 0, -n % options.rows)).view(-1, 1, options.rows, width)
        rows, keys, wide = widened(rows), widened(keys), widened(values)
        o = sdpa_attention(rows, keys, wide, allowed=size > 0, bias=size.clamp(min=1).log(), causal=False, scale=None)
        return o.to(v.dtype).view(batch, heads, -1, v.shape[3])[:, :, :n]

    @torch.no_grad()
    def _levels(self, q: Tensor, k: Tensor, lengths: Tensor) -> Tensor:
        """The level of each block of keys for each block of queries [B, Hq, R, K], 0: skipped."""
        options, shared = self.mechanism, q.shape[1] // k.shape[1]
        asking = self._blocks(q, options.rows, options.sampled(options.rows), lengths)
        asked = self._blocks(k, options.block, options.sampled(options.block), lengths)
        keys = asked.flatten(2, 3).repeat_interleave(shared, 1).mT
        at, count = torch.arange(asked.shape[2], device=q.device), -(-lengths // options.block)
        missing = (at >= count[:, None])[:, None, None]
        importance = []
        for rows in asking.unbind(2):
            logits = torch.unflatten(rows @ keys * q.shape[-1] ** -0.5, -1, asked.shape[2:4])
            chances = logits.masked_fill(missing[..., None], -torch.inf).flatten(-2).softmax(-1)
            importance.append(torch.unflatten(chances.sum(2), -1, asked.shape[2:4]).sum(-1))
        # Blocks that are not there have none, and come last, for the sort is stable.
        ordered = torch.stack(importance, 2).sort(dim=-1, descending=True, stable=True)
        if options.share_of == "blocks":
            passed = at / count.double().clamp(min=1).view(-1, 1, 1, 1)
        else:
            passed = (ordered.values.cumsum(-1) - ordered.values) / ordered.values.sum(-1, keepdim=True)
        table = torch.tensor((*_LEVELS, 0), device=q.device)
        level = table[torch.bucketize(passed, passed.new_tensor(options.bounds), right=True)]
        level = torch.zeros_like(ordered.indices).scatter(-1, ordered.indices, level.expand_as(ordered.indices))
        if options.alike is not None:
            level = level.minimum(self._caps(k, lengths).repeat_interleave(shared, 1)[:, :, None])
        return level.masked_fill(missing, 0)

    def _blocks(self, x: Tensor, size: int, places: list[int], lengths: Tensor) -> Tensor:
        """Tokens at these places of each block [B, H, blocks, S, D]; instead of a missing one the last token."""
        start = torch.arange(0, x.shape[2], size, device=x.device)[:, None]
        at = (start + torch.tensor(places, device=x.device)).minimum((lengths - 1).clamp(min=0).view(-1, 1, 1))
        rows = at[:, None].expand(*x.shape[:2], -1, -1)
        return torch.unflatten(gather_tokens(widened(x), rows.flatten(2)), 2, rows.shape[2:])

    def _caps(self, k: Tensor, lengths: Tensor) -> Tensor:
        """The highest level that the similarity of its keys allows each block, [B, Hk, K]."""
        options = self.mechanism
        assert options.alike is not None
        blocks = self._blocks(k, options.block, list(range(options.block)), lengths)
        caps = torch.ones_like(blocks[..., 0, 0], dtype=torch.long)
        for level, bound in zip(_LEVELS[1:], options.alike, strict=True):
            cosine = functional.cosine_similarity(blocks[..., ::level, :], blocks[..., level - 1 :: level, :], dim=-1)
            caps = torch.where(cosine.mean(-1) > bound, level, caps)
        return caps

    def _units(self, level: Tensor) -> Tensor:
        """Ids of the units that stand for the blocks at their levels, -1 after the last: [B, Hq, R, n]."""
        blocks, most = level.shape[-1], _LEVELS[-1]
        first, start = torch.zeros_like(level), 0
        for p in _LEVELS:
            first = torch.where(level == p, start + torch.arange(blocks, device=level.device) * (most // p), first)
            start += blocks * (most // p)
        unit = torch.arange(most, device=level.device)
        count = torch.where(level > 0, most // level.clamp(min=1), 0)
        units = torch.where(unit < count[..., None], first[..., None] + unit, -1).flatten(-2)
        return units.sort(-1, descending=True).values[..., : int((units >= 0).sum(-1).max())]


def _pyramid(x: Tensor, block: int) -> Tensor:
    """The sums of 1, 2, 4 and 8 tokens one after the other, [B, H, M, D]; what is missing of the last block is 0."""
    filled = functional.pad(x, (0, 0, 0, -x.shape[2] % block))
    return torch.cat([torch.unflatten(filled, 2, (-1, p)).sum(3) for p in _LEVELS], 2)
