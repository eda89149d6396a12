"""What masks say about whole tiles of the map: numbers of tokens as ranges, statements as what may and what must hold.

A mask is a function of pairs of tokens. Given `Tiles` in place of `Pairs`, it reads a `Range` where it would read a
tensor, computes with it as with a tensor, and ends up with a `Verdict` for each tile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from coterie.attention.data import Field, Fields, Pairs

_MOST = 2**62


@dataclass(frozen=True, slots=True)
class Verdict:
    """Bool tensors. `may`: some pair of the tile may be allowed, where it is false, none is. `must`: all pairs are."""

    may: Tensor
    must: Tensor

    def __and__(self, other: Verdict) -> Verdict:
        return Verdict(self.may & other.may, self.must & other.must)

    def __or__(self, other: Verdict) -> Verdict:
        return Verdict(self.may | other.may, self.must | other.must)

    def __invert__(self) -> Verdict:
        return Verdict(~self.must, ~self.may)


@dataclass(frozen=True, slots=True, eq=False)
class Range:
    """Integers from `low` to `high`, tensors that broadcast: all of them, one or a few of which a tile holds."""

    low: Tensor
    high: Tensor

    def __add__(self, other: Any) -> Range:
        other = _range(other)
        return Range(self.low + other.low, self.high + other.high)

    def __neg__(self) -> Range:
        return Range(-self.high, -self.low)

    def __sub__(self, other: Any) -> Range:
        return self + -_range(other)

    def __mul__(self, factor: int) -> Range:
        return Range(self.low * factor, self.high * factor) if factor >= 0 else -(self * -factor)

    def __floordiv__(self, divisor: int) -> Range:
        return Range(self.low // divisor, self.high // divisor)

    def __mod__(self, divisor: int) -> Range:
        wraps = self.low // divisor != self.high // divisor
        return Range((self.low % divisor).masked_fill(wraps, 0), (self.high % divisor).masked_fill(wraps, divisor - 1))

    def __and__(self, other: Range) -> Range:
        """Of bits: known where both are one number."""
        known = (self.low == self.high) & (other.low == other.high)
        bits = self.low & other.low
        return Range(bits.where(known, -_MOST), bits.where(known, _MOST))

    def clamp(self, min: Any = None, max: Any = None) -> Range:  # noqa: A002
        """As of tensors."""
        low, high = self.low, self.high
        if min is not None:
            least = _range(min)
            low, high = torch.maximum(low, least.low), torch.maximum(high, least.high)
        if max is not None:
            most = _range(max)
            low, high = torch.minimum(low, most.low), torch.minimum(high, most.high)
        return Range(low, high)

    def __le__(self, other: Any) -> Verdict:
        other = _range(other)
        return Verdict(self.low <= other.high, self.high <= other.low)

    def __lt__(self, other: Any) -> Verdict:
        return self <= _range(other) + -1

    def __ge__(self, other: Any) -> Verdict:
        return _range(other) <= self

    def __gt__(self, other: Any) -> Verdict:
        return _range(other) < self

    def __eq__(self, other: object) -> Verdict:  # type: ignore[override]
        return (self <= other) & (self >= other)

    def __ne__(self, other: object) -> Verdict:  # type: ignore[override]
        return ~(self == other)


def _range(number: Any) -> Range:
    if isinstance(number, Range):
        return number
    exact = torch.as_tensor(number)
    return Range(exact, exact)


class Tiles(Pairs):
    """Tiles of `rows` queries and `columns` keys, as masks see them: index tensors that broadcast against each other.

    `heads` neighbouring query heads stand for one. Which difference between heads a mask reads is found out by asking
    it: `lists` is the number of heads it tells apart.
    """

    def __init__(
        self, fields: Fields, b: Tensor, h: Tensor, i: Tensor, j: Tensor, *, rows: int, columns: int, heads: int
    ) -> None:
        super().__init__(fields, b, h * heads, i, j)
        self.rows, self.columns, self.lists = rows, columns, 1

    def query(self, field: Field, below: int | None = None) -> Tensor:
        return self._span("queries", field, below)  # type: ignore[return-value]

    def key(self, field: Field, below: int | None = None) -> Tensor:
        return self._span("keys", field, below)  # type: ignore[return-value]

    def _span(self, side: Any, field: Field, below: int | None) -> Range:
        index, size = (self._i, self.rows) if side == "queries" else (self._j, self.columns)
        count = self._fields.sizes.queries if side == "queries" else self._fields.sizes.keys
        tensor = self._fields.token(side, field, below)
        if tensor is None:
            return Range(index * size, (index * size + (size - 1)).clamp(max=count - 1))
        tiles = _padded(tensor[..., None, :], 1, size)[..., 0, :].reshape(*tensor.shape[:-1], -1, size)
        return Range(*(self._at(x, index) for x in torch.aminmax(tiles, dim=-1)))

    def hops(self) -> Tensor:
        hops = _padded(self._fields.hops(), self.rows, self.columns)
        sizes = hops.shape[-2] // self.rows, self.rows, hops.shape[-1] // self.columns, self.columns
        # Where there is no path, it is as far as can be.
        tiles = hops.masked_fill(hops < 0, _MOST).reshape(*hops.shape[:-2], *sizes)
        ends = tiles.amin((-3, -1)), tiles.amax((-3, -1))
        return Range(*(self._at(x, self._i, self._j) for x in ends))  # type: ignore[return-value]

    def listed(self) -> Tensor:
        index = self._fields.neighbors()
        queries, keys = self._fields.sizes[2:]
        rows, columns = -(-queries // self.rows), -(-keys // self.columns)
        tiles = index.div(self.columns, rounding_mode="floor").masked_fill(index < 0, columns).flatten(-2)
        row = torch.arange(index.shape[-2], device=index.device)[:, None] // self.rows
        line = (row * (columns + 1)).expand(index.shape[-2:]).flatten()
        # One column more takes what stands in empty slots.
        table = torch.zeros(*index.shape[:-2], rows * (columns + 1), dtype=torch.bool, device=index.device)
        table = table.scatter(-1, line + tiles, True).view(*index.shape[:-2], rows, columns + 1)
        may = self._at(table, self._i, self._j)
        return Verdict(may, torch.zeros_like(may))  # type: ignore[return-value]

    def in_blocks(self, block: int, rows: int) -> Tensor:
        table = self._fields.in_blocks(block, rows)
        self.lists = math.lcm(self.lists, table.shape[1])
        b, h = self._b if table.shape[0] > 1 else 0, self._h // (self._fields.sizes.heads // table.shape[1])
        row, first = self._i * self.rows // rows, self._j * self.columns
        last = ((first + self.columns - 1) // block).clamp(max=table.shape[-1] - 1)
        steps = range(0, self.columns + block - 1, block)
        found = [table[b, h, row, torch.minimum((first + step) // block, last)] for step in steps]
        blocks = torch.stack(found)
        return Verdict(blocks.any(0), blocks.all(0))  # type: ignore[return-value]

    def by_head(self, name: str, values: tuple[int, ...]) -> Tensor:
        heads = self._fields.sizes.heads
        fewest = next(n for n in range(1, heads + 1) if heads % n == 0 and _is_constant(values, heads // n))
        self.lists = math.lcm(self.lists, fewest)
        return super().by_head(name, values)

    def look_up(self, table: tuple[tuple[int, ...], ...], row: Any, column: Any) -> Tensor:
        """Known where all queries of the tile have one role, and all keys."""
        found = super().look_up(table, row.low, column.low)
        known = (row.low == row.high) & (column.low == column.high)
        entries = [entry for line in table for entry in line]
        return Range(found.where(known, min(entries)), found.where(known, max(entries)))  # type: ignore[return-value]


def _is_constant(values: tuple[int, ...], run: int) -> bool:
    """Whether each `run` neighbouring values are one."""
    return all(len(set(values[first : first + run])) == 1 for first in range(0, len(values), run))


def _padded(x: Tensor, rows: int, columns: int) -> Tensor:
    """[.., N, M] as multiples of rows and columns, by more of its last row and column."""
    for dim, size in ((-2, rows), (-1, columns)):
        count = x.shape[dim]
        if count % size:
            x = x.index_select(dim, torch.arange(count + -count % size, device=x.device).clamp(max=count - 1))
    return x
