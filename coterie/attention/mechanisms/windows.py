"""Local windows, the same in all heads: around a token, or around its block."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor, nn

from coterie.attention.attend import attend
from coterie.attention.data import Data, Tokens
from coterie.attention.masks import Blocks, Neighborhood
from coterie.attention.mechanisms.base import (
    About,
    Context,
    Declaration,
    Heads,
    check_between,
    drawn_grid,
    grid_of,
    narrowed,
    visible,
)
from coterie.attention.naive import naive_attention
from coterie.attention.spec import Spec


class OnGrid(Declaration):
    """A declaration for tokens on a grid, which are attended to in the order of small boxes.

    What is near on all axes is then near in memory, so that a window covers few tiles of keys (the token permutation of
    Generalized Neighborhood Attention). Masks read where a token stood before.
    """

    def module(self, heads: Heads) -> nn.Module:
        return _OnGrid(self)


class _OnGrid(nn.Module):
    def __init__(self, declaration: OnGrid) -> None:
        super().__init__()
        self.declaration = declaration

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        spec, data = self.declaration.declare(q, k, context)
        spec = replace(spec, mask=narrowed(spec.mask, context))
        if context.grid is None or len(context.grid) == 1:
            return attend(q, k, v, spec, data)
        order, back = _boxes(context.grid, q.device)
        q, k, v = (x.index_select(2, order) for x in (q, k, v))
        return attend(q, k, v, spec, _moved(data, order)).index_select(2, back)


def _moved(data: Data, order: Tensor) -> Data:
    """What is known about the tokens, in another order of these."""
    given = {f.name: getattr(data.queries, f.name) for f in fields(data.queries)}
    moved = {name: x[..., order] for name, x in given.items() if x is not None}
    return replace(data, queries=Tokens(**({"position": order} | moved)))


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # what is kept must also serve gradients
def _boxes(grid: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Which token stands at each place, boxes one after the other, and where each token stands."""
    side = 8 if len(grid) == 2 else 4
    at = torch.cartesian_prod(*(torch.arange(n) for n in grid))
    keys = [*(at // side).unbind(1), *(at % side).unbind(1)]
    order = torch.arange(len(at))
    for key in reversed(keys):
        order = order[key[order].argsort(stable=True)]
    return order.to(device), order.argsort().to(device)


def _all_axes(grid: tuple[int, ...], by_axis: list[Tensor]) -> Tensor:
    """[N, N] of masks [n, n] for each axis of a grid: a pair is allowed where each axis allows it."""
    at = torch.cartesian_prod(*(torch.arange(n) for n in grid)).view(-1, len(grid))
    return torch.stack([mask[at[:, None, a], at[:, a]] for a, mask in enumerate(by_axis)]).all(0)


@dataclass(frozen=True, slots=True)
class GeneralizedNeighborhood(OnGrid):
    """GNA. A window wider than its axis is the axis; causal order is one on each axis."""

    window: tuple[int, ...] = (7, 7)
    """One for each axis of the grid; a sequence needs no grid."""
    stride: int | tuple[int, ...] = 1
    """How many neighbours share a window: 1 is neighborhood attention, `window` is attention in blocks."""
    dilation: int | tuple[int, ...] = 1
    """Places from one key of a window to the next. As of `stride`, a number is that of all axes."""

    about: ClassVar[About] = About(
        name="gna",
        title="GNA: a window that moves inwards at borders, with stride and dilation",
        formula="c - w//2 <= j <= c + (w-1)//2,  c = clamp(min(t (i//t) + t//2, n-1), w//2, n-1 - (w-1)//2), by axis",
        source="Generalized Neighborhood Attention (arXiv 2504.16922)",
        cost="O(N w d) with w places in a window",
    )

    def __post_init__(self) -> None:
        check_between(self, 1, math.inf, "window", "stride", "dilation")
        for name in ("stride", "dilation"):
            if len(self._by_axis(name)) != len(self.window):
                raise ValueError(f"gna: {name} is {getattr(self, name)}, expected a number for each of {self.window}")

    @classmethod
    def small(cls) -> GeneralizedNeighborhood:
        return cls(window=(3, 4), stride=2)

    def declare(self, q: Tensor, k: Tensor, context: Context) -> tuple[Spec, Data]:
        grid = self._grid(q, context)
        dilation = tuple(min(d, n) for d, n in zip(self._by_axis("dilation"), grid, strict=True))
        window = tuple(min(w, n // d) for w, n, d in zip(self.window, grid, dilation, strict=True))
        return Spec(Neighborhood(grid, window, self.stride, dilation, context.causal)), context.data

    def _by_axis(self, name: str) -> tuple[int, ...]:
        value = getattr(self, name)
        return value if isinstance(value, tuple) else (value,) * len(self.window)

    def _grid(self, q: Tensor, context: Context) -> tuple[int, ...]:
        return grid_of(self.about, context, q.shape[2], len(self.window))

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        grid = self._grid(q, context)
        axes = zip(grid, self.window, self._by_axis("stride"), self._by_axis("dilation"), strict=True)
        by_axis = [_gna_axis(*axis, context.causal) for axis in axes]
        return naive_attention(q, k, v, allowed=_all_axes(grid, by_axis).to(q.device))[0]

    def pairs(self, tokens: int) -> int:
        return tokens * min(math.prod(self.window), tokens)

    def context(self, tokens: int, draw: torch.Generator, heads: Heads, batch: int) -> Context:
        return drawn_grid(tokens, len(self.window))


def _gna_axis(n: int, window: int, stride: int, dilation: int, causal: bool) -> Tensor:
    """[n, n], by moving a window over every `dilation`-th place."""
    allowed, dilation = torch.zeros(n, n, dtype=torch.bool), min(dilation, n)
    window = min(window, n // dilation)
    for i in range(n):
        group = list(range(i % dilation, n, dilation))
        place, first = group.index(i), group.index(i) // stride * stride
        if causal:
            last = min(first + stride - 1, len(group) - 1)
            seen = group[max(last - window + 1, 0) : place + 1]
        else:
            leader = min(first + stride // 2, len(group) - 1)
            start = min(max(leader - window // 2, 0), len(group) - window)
            seen = group[start : start + window]
        allowed[i, seen] = True
    return allowed


@dataclass(frozen=True, slots=True)
class Halo(OnGrid):
    """HaloNet's pattern; its position logits q.r are a bias for the caller to add."""

    block: int = 8
    halo: int = 3

    reads = "grid"
    about: ClassVar[About] = About(
        name="halonet",
        title="HaloNet: the queries of a block see it and a halo around it",
        formula="b (i//b) - h <= j < b (i//b) + b + h  on each axis",
        source="Scaling Local Self-Attention for Parameter Efficient Visual Backbones (arXiv 2103.12731)",
        cost="O(N (b + 2h)^2 d)",
    )

    def __post_init__(self) -> None:
        check_between(self, 1, math.inf, "block")
        check_between(self, 0, math.inf, "halo")

    @classmethod
    def small(cls) -> Halo:
        return cls(block=2, halo=1)

    def declare(self, q: Tensor, k: Tensor, context: Context) -> tuple[Spec, Data]:
        return Spec(Blocks(self.block, self.halo, shape=grid_of(self.about, context, q.shape[2], 2))), context.data

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        rows, columns = grid_of(self.about, context, q.shape[2], 2)
        allowed = torch.zeros(rows, columns, rows, columns, dtype=torch.bool)
        for r in range(0, rows, self.block):
            for c in range(0, columns, self.block):
                seen = [slice(max(start - self.halo, 0), start + self.block + self.halo) for start in (r, c)]
                allowed[r : r + self.block, c : c + self.block, *seen] = True
        allowed = allowed.view(q.shape[2], q.shape[2]).to(q.device) & visible(q, context)
        return naive_attention(q, k, v, allowed=allowed)[0]

    def pairs(self, tokens: int) -> int:
        return tokens * min((self.block + 2 * self.halo) ** 2, tokens)


@dataclass(frozen=True, slots=True)
class InwardWindow(OnGrid):
    """FreeSwim's window, as large as the picture that a model was trained on; every frame sees every other."""

    half: tuple[int, int] = (15, 26)
    """Places on each side; the default fits latents of 480 x 832 pixels."""

    reads = "grid"
    about: ClassVar[About] = About(
        name="inward_window",
        title="FreeSwim: a window of constant size that grows inwards at borders, in all frames",
        formula="start <= j < start + w on rows and columns,  w = 2 d + 1,  start = clamp(i - d, 0, n - w)",
        source="FreeSwim: Revisiting Sliding-Window Attention for Ultra-High-Resolution Video (arXiv 2511.14712)",
        cost="O(N T w_r w_c d) with T frames",
    )

    def __post_init__(self) -> None:
        check_between(self, 0, math.inf, "half")

    @classmethod
    def small(cls) -> InwardWindow:
        return cls(half=(1, 1))

    def declare(self, q: Tensor, k: Tensor, context: Context) -> tuple[Spec, Data]:
        *time, rows, columns = grid = grid_of(self.about, context, q.shape[2], 2, 3)
        spatial = (min(2 * d + 1, n) for d, n in zip(self.half, (rows, columns), strict=True))
        return Spec(Neighborhood(grid, (*time, *spatial))), context.data

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        *time, rows, columns = grid = grid_of(self.about, context, q.shape[2], 2, 3)
        by_axis = [torch.ones(n, n, dtype=torch.bool) for n in time]
        for n, d in ((rows, self.half[0]), (columns, self.half[1])):
            starts = [max(min(i - d, n - 2 * d - 1), 0) for i in range(n)]
            by_axis.append(torch.tensor([[start <= j <= start + 2 * d for j in range(n)] for start in starts]))
        allowed = _all_axes(grid, by_axis).to(q.device) & visible(q, context)
        return naive_attention(q, k, v, allowed=allowed)[0]

    def pairs(self, tokens: int) -> int:
        return tokens * min(math.prod(2 * d + 1 for d in self.half), tokens)
