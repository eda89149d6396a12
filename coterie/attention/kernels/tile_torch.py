"""Attention over lists of tiles in plain torch.

A tile is too little work for a call of torch, so all tiles of a row are taken at once. Where every query has a list of
its own, that would copy many keys for it: then all tiles of a column are, and keys stay while queries are gathered.
Softmax runs along; gradients need no more than lse. Sums are in a fixed order.

Heads are [Hk, g] here, with g query heads for each key head: views, and keys are not repeated.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from coterie.attention.blocks import KEYS, TileLists

_FEW = 16
"""Queries of a row of tiles, below which columns are taken."""
_MOST_NUMBERS = 1 << 20
"""Scores made at once, so that they stay in the cache."""


class Terms(NamedTuple):
    """What scores are made of: scale q.k + u.w."""

    q: Tensor
    """[B, Hq, N, D]."""
    k: Tensor
    """[B, Hk, M, D], with as many key heads as divide the query heads; of the dtype of q."""
    u: Tensor | None
    """[B, Hq, N, R], float32 or float64."""
    w: Tensor | None
    """[B, Hq, M, R]."""
    scale: float


class Grads(NamedTuple):
    """Gradients, in the dtypes of what they are of."""

    q: Tensor
    k: Tensor
    v: Tensor
    u: Tensor | None
    w: Tensor | None


def forward(terms: Terms, v: Tensor, tiles: TileLists) -> tuple[Tensor, Tensor]:
    """The output [B, Hq, N, Dv] in the dtype of v, and lse [B, Hq, N] in float32 or float64."""
    pass_ = _Pass(terms, v, tiles)
    o = pass_.q.new_zeros(*pass_.q.shape[:-1], v.shape[-1])
    total = pass_.q.new_zeros(*pass_.q.shape[:-1], 1)
    top = torch.full_like(total, -torch.inf)
    for work in pass_.works():
        mine, best, sums = (_Rows(x[work.heads], work.rows) for x in (o, top, total))
        scores = pass_.scores(work)
        new = torch.maximum(best.value, scores.amax(-1, keepdim=True))
        # Where nothing was allowed yet there is nothing to subtract.
        base = new.masked_fill(new == -torch.inf, 0)
        fade = (best.value - base).exp_()
        weights = scores.sub_(base).exp_()
        best.value = new
        sums.value = torch.addcmul(weights.sum(-1, keepdim=True), sums.value, fade)
        mine.value = torch.addcmul(weights @ _Rows(pass_.v[work.lists], work.keys).value, mine.value, fade)
    o.div_(total.masked_fill(total == 0, 1))
    return o.flatten(1, 2).to(v.dtype), top.add_(total.log_()).flatten(1, 2).squeeze(-1)


def backward(
    terms: Terms, v: Tensor, tiles: TileLists, o: Tensor, lse: Tensor, grad_o: Tensor, grad_lse: Tensor
) -> Grads:
    """What `forward` gave, and gradients of it."""
    pass_ = _Pass(terms, v, tiles)
    grad, out = (pass_.by_head(x) for x in (grad_o, o))
    least, slope_of_lse = (pass_.by_head(x[..., None]) for x in (lse, grad_lse))
    empty = least == -torch.inf
    least = least.masked_fill(empty, torch.inf)
    delta = (grad * out).sum(-1, keepdim=True) - slope_of_lse.masked_fill(empty, 0)
    grad_q, grad_k, grad_v = (torch.zeros_like(x) for x in (pass_.q, pass_.k, pass_.v))
    grad_u, grad_w = (None if x is None else torch.zeros_like(x) for x in (pass_.u, pass_.w))
    for work in pass_.works():
        rows, keys = work.rows, work.keys
        weights = pass_.scores(work).sub_(_Rows(least[work.heads], rows).value).exp_()
        mine = _Rows(grad[work.heads], rows).value
        _Rows(grad_v[work.lists], keys).add((weights.mT @ mine).sum(2, keepdim=True))
        slope = mine @ _Rows(pass_.v[work.lists], keys).value.mT
        slope = slope.sub_(_Rows(delta[work.heads], rows).value).mul_(weights)
        queries = _Rows(pass_.q[work.heads], rows).value
        _Rows(grad_k[work.lists], keys).add((slope.mT @ queries).sum(2, keepdim=True))
        _Rows(grad_q[work.heads], rows).add(slope @ _Rows(pass_.k[work.lists], keys).value)
        if pass_.u is not None and pass_.w is not None and grad_u is not None and grad_w is not None:
            _Rows(grad_w[work.heads], keys).add(slope.mT @ _Rows(pass_.u[work.heads], rows).value)
            _Rows(grad_u[work.heads], rows).add(slope @ _Rows(pass_.w[work.heads], keys).value)
    u, w = (None if x is None or of is None else _like(x, of) for x, of in ((grad_u, terms.u), (grad_w, terms.w)))
    return Grads(_like(grad_q.mul_(terms.scale), terms.q), _like(grad_k, terms.k), _like(grad_v, v), u, w)


def _like(x: Tensor, of: Tensor) -> Tensor:
    return x.reshape(of.shape).to(of.dtype)


class _Work(NamedTuple):
    """Some queries that look at some keys."""

    heads: tuple[slice, slice, slice]
    """Sequences, key heads, and query heads of each, of one list."""
    lists: tuple[slice, slice]
    """The first two."""
    rows: slice | Tensor
    keys: slice | Tensor
    forbidden: Tensor | None
    """Bool [rows, keys]; None: they may see all of them."""


class _Rows:
    """Some rows of a tensor [.., N, D]."""

    def __init__(self, x: Tensor, rows: slice | Tensor) -> None:
        self.x, self.rows = x, rows

    @property
    def value(self) -> Tensor:
        return self.x[..., self.rows, :] if isinstance(self.rows, slice) else self.x.index_select(-2, self.rows)

    @value.setter
    def value(self, new: Tensor) -> None:
        if isinstance(self.rows, slice):
            self.x[..., self.rows, :] = new
        else:
            self.x.index_copy_(-2, self.rows, new)

    def add(self, more: Tensor) -> None:
        if isinstance(self.rows, slice):
            self.x[..., self.rows, :] += more
        else:
            self.x.index_add_(-2, self.rows, more)


class _Pass:
    """Over all tiles: tensors with heads apart, in which sums are made."""

    def __init__(self, terms: Terms, v: Tensor, tiles: TileLists) -> None:
        self.tiles, self.key_heads = tiles, v.shape[1]
        self.dtype = torch.promote_types(v.dtype, torch.float32)
        self.q, self.k, self.v = (self.by_head(x) for x in (terms.q, terms.k, v))
        self.q = self.q * terms.scale
        self.u, self.w = (None if x is None else self.by_head(x) for x in (terms.u, terms.w))

    def by_head(self, x: Tensor) -> Tensor:
        """[B, Hk, g or 1, .., ..]."""
        return x.to(self.dtype).reshape(x.shape[0], self.key_heads, -1, *x.shape[2:])

    def scores(self, work: _Work) -> Tensor:
        """Minus infinity where nothing is allowed."""
        scores = _Rows(self.q[work.heads], work.rows).value @ _Rows(self.k[work.lists], work.keys).value.mT
        if self.u is not None and self.w is not None:
            # Its own sum first: it may be large, and then little.
            scores += _Rows(self.u[work.heads], work.rows).value @ _Rows(self.w[work.heads], work.keys).value.mT
        return scores if work.forbidden is None else scores.masked_fill_(work.forbidden, -torch.inf)

    def works(self) -> Iterator[_Work]:
        """All tiles, row by row, or column by column where rows are few queries."""
        tiles, (batch, heads, group, queries, _), keys = self.tiles, self.q.shape, self.k.shape[-2]
        by_row = tiles.rows >= _FEW
        lines, entries = (tiles.counts[0], tiles.by_query) if by_row else (tiles.counts[1], tiles.by_key)
        shared = batch // tiles.batch * heads * group // tiles.heads
        at_once = max(1, _MOST_NUMBERS // (shared * tiles.rows * KEYS))
        (full_starts, full, _), (some_starts, some, bits) = ((x.starts.tolist(), *x[1:]) for x in entries)
        for line in range(tiles.batch * tiles.heads * lines):
            list_, own = divmod(line, lines)
            part = self._heads(*divmod(list_, tiles.heads))
            whole, mixed = slice(*full_starts[line : line + 2]), slice(*some_starts[line : line + 2])
            mine = torch.tensor([own])
            for others, at in self._kinds(full[whole], some[mixed], bits[mixed], by_row):
                for first in range(0, len(others), at_once):
                    other, place = others[first : first + at_once], at[first : first + at_once]
                    rows, columns = (mine, other) if by_row else (other, mine)
                    sizes = _count(rows, tiles.rows, queries), _count(columns, KEYS, keys)
                    forbidden = self._forbidden(place, by_row, *sizes)
                    places = _rows(rows, tiles.rows, queries), _rows(columns, KEYS, keys)
                    yield _Work(part, part[:2], *places, forbidden)

    def _kinds(
        self, full: Tensor, some: Tensor, places: Tensor, together: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
        """Tiles in order, and where their bits are, -1 for full ones: all together, or full ones and others."""
        if together:
            others, order = torch.cat([full, some]).sort()
            yield others, torch.cat([torch.full_like(full, -1), places])[order]
        else:
            yield full, torch.full_like(full, -1)
            yield some, places

    def _forbidden(self, places: Tensor, by_row: bool, rows: int, columns: int) -> Tensor | None:
        """Bool [rows, columns] of tiles side by side, or one under the other; None: nothing is forbidden."""
        mixed = places >= 0
        if not bool(mixed.any()):
            return None
        forbidden = torch.zeros(len(places), self.tiles.rows, KEYS, dtype=torch.bool)
        forbidden[mixed] = _unpack(self.tiles.bits[places[mixed]])
        return (forbidden.transpose(0, 1).flatten(1) if by_row else forbidden.flatten(0, 1))[:rows, :columns]

    def _heads(self, sequence: int, list_: int) -> tuple[slice, slice, slice]:
        batch = slice(sequence, sequence + 1) if self.tiles.batch > 1 else slice(None)
        if self.tiles.heads <= self.key_heads:
            size = self.key_heads // self.tiles.heads
            return batch, slice(list_ * size, (list_ + 1) * size), slice(None)
        lists = self.tiles.heads // self.key_heads
        size = self.q.shape[2] // lists
        first = list_ % lists * size
        return batch, slice(list_ // lists, list_ // lists + 1), slice(first, first + size)


def _count(tiles: Tensor, size: int, tokens: int) -> int:
    """How many tokens tiles in order hold, the last of which may be cut off."""
    return len(tiles) * size - max(0, (int(tiles[-1]) + 1) * size - tokens)


def _rows(tiles: Tensor, size: int, tokens: int) -> slice | Tensor:
    """The tokens of tiles that are in order, as a slice if they are one behind the other."""
    first, count = int(tiles[0]), _count(tiles, size, tokens)
    if int(tiles[-1]) - first + 1 == len(tiles):
        return slice(first * size, first * size + count)
    return (tiles.long()[:, None] * size + torch.arange(size)).flatten()[:count]


def _unpack(bits: Tensor) -> Tensor:
    """Where bits are not set: bool [.., 64]."""
    return _unset()[bits.flatten().view(torch.uint8).int()].view(*bits.shape, KEYS)


@functools.cache
def _unset() -> Tensor:
    """By byte which of its bits are not set."""
    return (torch.arange(256)[:, None] >> torch.arange(8)) % 2 == 0
