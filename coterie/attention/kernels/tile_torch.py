"""Attention over lists of tiles in plain torch: keys pass by, 64 at a time, and the queries that may see them look.

A tile is too little work for a call of torch, so all queries of a column of tiles are taken at once: full tiles, then
those with bits. Softmax runs along; gradients need no more than lse. Sums are in a fixed order.

Heads are [Hk, g] here, with g query heads for each key head: views, and keys are not repeated.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from coterie.attention.blocks import KEYS, TileLists

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
        mine.value = torch.addcmul(weights @ pass_.v[work.lists][..., work.keys, :], mine.value, fade)
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
        grad_v[work.lists][..., keys, :] += (weights.mT @ mine).sum(2, keepdim=True)
        slope = mine @ pass_.v[work.lists][..., keys, :].mT
        slope = slope.sub_(_Rows(delta[work.heads], rows).value).mul_(weights)
        queries = _Rows(pass_.q[work.heads], rows).value
        grad_k[work.lists][..., keys, :] += (slope.mT @ queries).sum(2, keepdim=True)
        _Rows(grad_q[work.heads], rows).add(slope @ pass_.k[work.lists][..., keys, :])
        if pass_.u is not None and pass_.w is not None and grad_u is not None and grad_w is not None:
            grad_w[work.heads][..., keys, :] += slope.mT @ _Rows(pass_.u[work.heads], rows).value
            _Rows(grad_u[work.heads], rows).add(slope @ pass_.w[work.heads][..., keys, :])
    u, w = (None if x is None or of is None else _like(x, of) for x, of in ((grad_u, terms.u), (grad_w, terms.w)))
    return Grads(_like(grad_q.mul_(terms.scale), terms.q), _like(grad_k, terms.k), _like(grad_v, v), u, w)


def _like(x: Tensor, of: Tensor) -> Tensor:
    return x.reshape(of.shape).to(of.dtype)


class _Work(NamedTuple):
    """Some queries that look at the keys of one column of tiles."""

    heads: tuple[slice, slice, slice]
    """Sequences, key heads, and query heads of each, of one list."""
    lists: tuple[slice, slice]
    """The first two."""
    rows: slice | Tensor
    keys: slice
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
        scores = _Rows(self.q[work.heads], work.rows).value @ self.k[work.lists][..., work.keys, :].mT
        if self.u is not None and self.w is not None:
            # Its own sum first: it may be large, and then little.
            scores += _Rows(self.u[work.heads], work.rows).value @ self.w[work.heads][..., work.keys, :].mT
        return scores if work.forbidden is None else scores.masked_fill_(work.forbidden, -torch.inf)

    def works(self) -> Iterator[_Work]:
        """All tiles, column by column."""
        tiles, (batch, heads, group, queries, _) = self.tiles, self.q.shape
        columns = tiles.counts[1]
        shared = batch // tiles.batch * heads * group // tiles.heads
        at_once = max(1, _MOST_NUMBERS // (shared * tiles.rows * KEYS))
        kinds = [(entries.starts.tolist(), *entries[1:]) for entries in tiles.by_key]
        for line in range(tiles.batch * tiles.heads * columns):
            place, column = divmod(line, columns)
            part = self._heads(*divmod(place, tiles.heads))
            keys = slice(column * KEYS, min((column + 1) * KEYS, self.k.shape[-2]))
            for kind, (starts, others, places) in enumerate(kinds):
                for begin in range(starts[line], starts[line + 1], at_once):
                    end = min(begin + at_once, starts[line + 1])
                    rows, forbidden = _rows(others[begin:end], tiles.rows, queries), None
                    if kind:
                        forbidden = _unpack(tiles.bits[places[begin:end]])
                        forbidden = forbidden[: len(rows) if isinstance(rows, Tensor) else rows.stop - rows.start]
                        forbidden = forbidden[:, : keys.stop - keys.start]
                    yield _Work(part, part[:2], rows, keys, forbidden)

    def _heads(self, sequence: int, list_: int) -> tuple[slice, slice, slice]:
        batch = slice(sequence, sequence + 1) if self.tiles.batch > 1 else slice(None)
        if self.tiles.heads <= self.key_heads:
            size = self.key_heads // self.tiles.heads
            return batch, slice(list_ * size, (list_ + 1) * size), slice(None)
        lists = self.tiles.heads // self.key_heads
        size = self.q.shape[2] // lists
        first = list_ % lists * size
        return batch, slice(list_ // lists, list_ // lists + 1), slice(first, first + size)


def _rows(tiles: Tensor, size: int, queries: int) -> slice | Tensor:
    """The queries of tiles that are in order, as a slice if they are one behind the other."""
    first, last = int(tiles[0]), int(tiles[-1])
    if last - first + 1 == len(tiles):
        return slice(first * size, min((last + 1) * size, queries))
    rows = (tiles.long()[:, None] * size + torch.arange(size)).flatten()
    return rows[: len(rows) - max(0, (last + 1) * size - queries)]


def _unpack(bits: Tensor) -> Tensor:
    """Where bits are not set: bool [E rows, 64]."""
    return _unset()[bits.flatten().view(torch.uint8).int()].view(-1, KEYS)


@functools.cache
def _unset() -> Tensor:
    """By byte which of its bits are not set."""
    return (torch.arange(256)[:, None] >> torch.arange(8)) % 2 == 0
