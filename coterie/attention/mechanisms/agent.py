"""Agent Attention: a few agents gather from all tokens, and all tokens read from the agents."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from coterie.attention.mechanisms.base import (
    About,
    Context,
    Heads,
    Mechanism,
    Missing,
    check_between,
    check_not_causal,
    drawn_grid,
    grid_of,
    padding_of,
    without_padding,
)
from coterie.attention.naive import share_heads
from coterie.attention.sdpa import sdpa_attention

_TABLE = 7
"""Places along a side for which biases are learned; they are stretched to the grid."""


@dataclass(frozen=True, slots=True)
class Agent(Mechanism):
    """Agents are the means of the queries in `side` x `side` fields of a plane, or in as many runs of a sequence.

    Padding is in no mean, and zero to the convolution, as what lies outside of the plane. The released code knows the
    size of its plane and has a bias for each row and column; here these are stretched to the grid, as all biases are.
    """

    side: int = 7
    on_plane: bool = True
    """Whether tokens lie on a plane, where biases by place and a depth-wise convolution of the values are learned."""

    about: ClassVar[About] = About(
        name="agent",
        title="Agent Attention: pooled queries gather from all tokens, all tokens read from them",
        formula="o = softmax(Q A^T / sqrt(d) + B_2) softmax(A K^T / sqrt(d) + B_1) V + DWC(V),  A = pool(Q)",
        source="Agent Attention: On the Integration of Softmax and Linear Attention (arXiv 2312.08874)",
        cost="O(N a d)",
    )

    def __post_init__(self) -> None:
        check_between(self, 1, math.inf, "side")

    @classmethod
    def small(cls) -> Agent:
        return cls(side=2)

    def module(self, heads: Heads) -> nn.Module:
        return _OnPlane(self.side, heads) if self.on_plane else _OnLine(self.side)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        if not self.on_plane:
            agents = _runs(self.side**2, q.shape[2], q) @ q
            return _naive(q, k, v, agents, q.new_zeros(1), q.new_zeros(1))
        rows, columns = sizes = context.grid or (1, 1)
        fields = torch.einsum("ar,bc->abrc", _runs(self.side, rows, q), _runs(self.side, columns, q))
        agents = fields.flatten(2).flatten(0, 1) @ q
        biases = [_naive_bias(module, name, sizes) for name in ("gathering", "reading")]
        # Each channel by itself: nine shifted copies of a plane with zeros around it.
        kernel, shift = (module.get_parameter(f"local.{name}") for name in ("weight", "bias"))
        plane = functional.pad(_channels(v, sizes), (1, 1, 1, 1))
        local = shift[:, None, None] + torch.zeros_like(_channels(v, sizes))
        for i, j in itertools.product(range(3), range(3)):
            local = local + plane[..., i : i + rows, j : j + columns] * kernel[:, :, i, j, None]
        local = _tokens(local, v.shape[1])
        return _naive(q, k, v, agents, *biases) + share_heads(local, q.shape[1])

    def pairs(self, tokens: int) -> int:
        return 2 * self.side**2 * tokens

    def context(self, tokens: int, draw: torch.Generator, heads: Heads, batch: int) -> Context:
        return drawn_grid(tokens) if self.on_plane else Context()


class _OnLine(nn.Module):
    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        padding = _check(context)
        q, k, v = without_padding(context, q, k, v)
        agents, is_empty = _pooled(q, (q.shape[2],), (self.side**2,), padding)
        return _attend(q, agents, _attend(agents, k, v, padding), is_empty)


class _OnPlane(nn.Module):
    def __init__(self, side: int, heads: Heads) -> None:
        super().__init__()
        self.side = side
        self.gathering, self.reading = (_Bias(heads.queries, side**2) for _ in range(2))
        channels = heads.keys * heads.width
        self.local = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        padding = _check(context)
        if context.grid is None:
            lack = "agent needs tokens on a plane, unless its option on_plane is false"
            raise Missing(lack, "Context(grid=(rows, columns))")
        grid = grid_of(Agent.about, context, q.shape[2], 2)
        q, k, v = without_padding(context, q, k, v)
        agents, is_empty = _pooled(q, grid, (self.side, self.side), padding)
        gathered = _attend(agents, k, v, padding, self.gathering(grid))
        o = _attend(q, agents, gathered, is_empty, self.reading(grid).mT)
        return o + share_heads(_tokens(self.local(_channels(v, grid)), v.shape[1]), q.shape[1])


def _pooled(
    q: Tensor, grid: tuple[int, ...], fields: tuple[int, ...], padding: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The means of queries without padding in each field [B, H, agents, D], and which fields hold padding alone."""
    pool: Any = functional.adaptive_avg_pool1d if len(grid) == 1 else functional.adaptive_avg_pool2d
    means = _tokens(pool(_channels(q, grid), fields), q.shape[1])
    if padding is None:
        return means, None
    share = pool((~padding).view(-1, 1, *grid).to(q.dtype), fields).flatten(1)
    return means / torch.where(share > 0, share, 1)[:, None, :, None], share == 0


class _Bias(nn.Module):
    """A bias for each agent and place: of its field, its row and its column."""

    def __init__(self, heads: int, agents: int) -> None:
        super().__init__()
        shapes = ((_TABLE, _TABLE), (_TABLE, 1), (1, _TABLE))
        tables = (nn.Parameter(0.02 * torch.randn(heads, agents, *shape)) for shape in shapes)
        self.fields, self.rows, self.columns = tables

    def forward(self, grid: tuple[int, ...]) -> Tensor:
        """[H, agents, N]."""
        rows, columns = grid
        sizes = (rows, columns), (rows, 1), (1, columns)
        tables = zip((self.fields, self.rows, self.columns), sizes, strict=True)
        field, row, column = (functional.interpolate(table, size, mode="bilinear") for table, size in tables)
        bias: Tensor = field + row + column
        return bias.flatten(2)


def _attend(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None, bias: Tensor | None = None) -> Tensor:
    """To all keys but those that are hidden [1 or B, M].

    With so few agents mask and bias are no larger than what is computed, and the bias has no factors.
    """
    allowed = None if hidden is None else ~hidden[:, None, None]
    return sdpa_attention(q, k, v, allowed=allowed, bias=bias, causal=False, scale=None)


def _channels(x: Tensor, grid: tuple[int, ...]) -> Tensor:
    """[B, H, N, D] as [B, H D, *grid]."""
    return x.mT.reshape(len(x), -1, *grid)


def _tokens(x: Tensor, heads: int) -> Tensor:
    """[B, H D, *grid] as [B, H, N, D]."""
    return x.reshape(len(x), heads, x.shape[1] // heads, -1).mT


def _check(context: Context) -> Tensor | None:
    """Which tokens are padding."""
    check_not_causal(Agent.about, context, "its agents are means of queries from the whole sequence; linear has one")
    return padding_of(Agent.about, context)


def _naive(q: Tensor, k: Tensor, v: Tensor, agents: Tensor, first: Tensor, second: Tensor) -> Tensor:
    k, v = (share_heads(x, q.shape[1]) for x in (k, v))
    scale = 1 / math.sqrt(q.shape[-1])
    gathered = (agents @ k.mT * scale + first).softmax(-1) @ v
    return (agents @ q.mT * scale + second).softmax(-2).mT @ gathered


def _runs(count: int, size: int, like: Tensor) -> Tensor:
    """Means over `count` runs of `size` places, each from the floor of where it begins to the ceiling of its end."""
    means = like.new_zeros(count, size)
    for run in range(count):
        start, stop = run * size // count, -((run + 1) * size // -count)
        means[run, start:stop] = 1 / (stop - start)
    return means


def _naive_bias(module: nn.Module, name: str, grid: tuple[int, ...]) -> Tensor:
    fields, by_row, by_column = (module.get_parameter(f"{name}.{table}") for table in ("fields", "rows", "columns"))
    rows, columns = (_stretch(size, fields) for size in grid)
    bias: Tensor = torch.einsum("haij,ri,cj->harc", fields, rows, columns) + rows @ by_row + by_column @ columns.T
    return bias.flatten(2)


def _stretch(size: int, like: Tensor) -> Tensor:
    """[size, table]: what each place takes of its two neighbours in the table, whose ends are the plane's edges."""
    weights = like.new_zeros(size, _TABLE)
    for place in range(size):
        at = min(max((place + 0.5) * _TABLE / size - 0.5, 0), _TABLE - 1)
        low = min(int(at), _TABLE - 2)
        weights[place, low], weights[place, low + 1] = 1 - (at - low), at - low
    return weights
