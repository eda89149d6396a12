"""Attention over lists of tiles in plain torch.

A tile is too little work for a call of torch, so all tiles of a row are taken at once, and full tiles that a few rows
have in common for all of these. Where every query has a list of its own, that would copy many keys for it: then those
of a column are, and keys stay while queries are gathered. Each such piece goes through torch's flash attention, which
keeps scores in a core's cache, and pieces are merged by lse. Gradients of a bias are sums of products, since flash
attention has none. Sums are in a fixed order.

Heads are [Hk, g] here, with g query heads for each key head: views, and keys are not repeated.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from coterie.attention.blocks import KEYS, STRIP, TileLists

_FEW = 16
"""Queries of a row of tiles, below which columns are taken."""
_MOST_NUMBERS = 1 << 20
"""Scores in memory at once, where they are, so that they stay in the cache."""
_MOST_BIASES = 1 << 21
"""Numbers of a bias in memory at once, for a call of flash attention."""

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


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
    pass_ = _Pass(terms, v, tiles, is_fused=True)
    o = torch.zeros_like(pass_.q)
    lse = torch.full_like(o[..., :1], -torch.inf)
    for work in pass_.works():
        mine, before = (_Rows(x[work.heads], work.rows) for x in (o, lse))
        part, more = pass_.attend(work)
        after = torch.logaddexp(before.value, more)
        # Where nothing was allowed yet there is nothing to subtract.
        base = after.masked_fill(after == -torch.inf, 0)
        mine.value = torch.addcmul(part.mul_((more - base).exp_()), mine.value, (before.value - base).exp_())
        before.value = after
    return o[..., : v.shape[-1]].flatten(1, 2).to(v.dtype), lse.flatten(1, 2).squeeze(-1)


def backward(
    terms: Terms, v: Tensor, tiles: TileLists, o: Tensor, lse: Tensor, grad_o: Tensor, grad_lse: Tensor, learns: bool
) -> Grads:
    """What `forward` gave, gradients of it, and whether factors need theirs."""
    values, empty = v, (lse == -torch.inf)[..., None]
    if bool(grad_lse.any()):
        # It moves scores as the gradient of one more output would, of which all values are 1.
        grad_o = torch.cat([grad_o, grad_lse[..., None].to(grad_o.dtype).masked_fill(empty, 0)], -1)
        o, values = pad(o, (0, 1)), pad(v, (0, 1), value=1)
    pass_ = _Pass(terms, values, tiles, is_fused=not learns and tiles.rows >= _FEW)
    grad, out = (pass_.wide(x) for x in (grad_o, o))
    least = pass_.by_head(lse[..., None].masked_fill(empty, torch.inf))
    grad_q, grad_k, grad_v = (torch.zeros_like(x) for x in (pass_.q, pass_.k, pass_.v))
    grad_u, grad_w = (None if x is None or not learns else torch.zeros_like(x) for x in (pass_.u, pass_.w))
    for work in pass_.works():
        found = pass_.slopes(work, *(_Rows(x[work.heads], work.rows).value for x in (grad, out, least)))
        _Rows(grad_q[work.heads], work.rows).add(found.q)
        _Rows(grad_k[work.lists], work.keys).add(found.k)
        _Rows(grad_v[work.lists], work.keys).add(found.v)
        if grad_u is not None and grad_w is not None and found.u is not None and found.w is not None:
            _Rows(grad_u[work.heads], work.rows).add(found.u)
            _Rows(grad_w[work.heads], work.keys).add(found.w)
    u, w = (None if x is None or of is None else _like(x, of) for x, of in ((grad_u, terms.u), (grad_w, terms.w)))
    return Grads(_like(grad_q.mul_(terms.scale), terms.q), _like(grad_k, terms.k), _like(grad_v, v), u, w)


def _like(x: Tensor, of: Tensor) -> Tensor:
    return x[..., : of.shape[-1]].reshape(of.shape).to(of.dtype)


class _Work(NamedTuple):
    """Some queries that look at some keys."""

    heads: tuple[slice, slice, slice]
    """Sequences, key heads, and query heads of each, of one list."""
    lists: tuple[slice, slice]
    """The first two."""
    rows: slice | Tensor
    keys: slice | Tensor
    penalty: Tensor | None
    """[rows, keys], minus infinity where a query may not see a key, else 0; None: they may see all of them."""
    empty: Tensor | None
    """Bool [rows], queries that see none of the keys; None likewise."""


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
    """Over all tiles: tensors with heads apart, in which sums are made; q, k and v are of one width."""

    def __init__(self, terms: Terms, v: Tensor, tiles: TileLists, *, is_fused: bool) -> None:
        self.tiles, self.key_heads, self.width = tiles, v.shape[1], max(v.shape[-1], terms.q.shape[-1])
        self.dtype = torch.promote_types(v.dtype, torch.float32)
        self.by_row, self.is_fused = tiles.rows >= _FEW, is_fused
        self.q, self.k, self.v = (self.wide(x) for x in (terms.q, terms.k, v))
        self.q = self.q * terms.scale
        self.u, self.w = (None if x is None else self.by_head(x) for x in (terms.u, terms.w))

    def by_head(self, x: Tensor) -> Tensor:
        """[B, Hk, g or 1, .., ..]."""
        return x.to(self.dtype).reshape(x.shape[0], self.key_heads, -1, *x.shape[2:])

    def wide(self, x: Tensor) -> Tensor:
        """By head, zeros behind narrower rows; a row's numbers side by side, which the kernel takes for granted."""
        missing = self.width - x.shape[-1]
        return self.by_head(pad(x, (0, missing)) if missing or x.stride(-1) != 1 else x)

    def attend(self, work: _Work) -> tuple[Tensor, Tensor]:
        """Output and lse [.., 1] of a piece."""
        q, k, v, u, w = self._piece(work)
        o, lse = _flash(q, k, v, 0.0, False, attn_mask=_bias(u, w, work.penalty), scale=1.0)
        if work.empty is not None:
            lse = lse.masked_fill(work.empty, -torch.inf)
        return self._apart(work, o), self._apart(work, lse[..., None])

    def slopes(self, work: _Work, grad: Tensor, o: Tensor, lse: Tensor) -> Grads:
        """What a piece adds to the gradients, given what all pieces together came to at its queries."""
        q, k, v, u, w = self._piece(work)
        grad, o, lse = (x.flatten(0, 1) for x in (grad, o, lse))
        bias = _bias(u, w, work.penalty)
        of_u = of_w = None
        if self.is_fused:
            of_q, of_k, of_v = _flash_backward(grad, q, k, v, o, lse[..., 0], 0.0, False, attn_mask=bias, scale=1.0)
        else:
            scores = q @ k.mT
            weights = (scores if bias is None else scores.add_(bias)).sub_(lse).exp_()
            slope = (grad @ v.mT).sub_((grad * o).sum(-1, keepdim=True)).mul_(weights)
            of_q, of_k, of_v = slope @ k, slope.mT @ q, weights.mT @ grad
            if u is not None and w is not None:
                of_u, of_w = self._apart(work, slope @ w), self._apart(work, slope.mT @ u)
        sums = of_q, of_k.sum(1, keepdim=True), of_v.sum(1, keepdim=True)
        of_q, of_k, of_v = (self._apart(work, x) for x in sums)
        return Grads(of_q, of_k, of_v, of_u, of_w)

    def _piece(self, work: _Work) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """Queries, keys, values and factors of a piece, [B Hk, g, .., ..]; keys are not copied for each head."""
        q = _Rows(self.q[work.heads], work.rows).value.flatten(0, 1)
        k, v = (
            _Rows(x[work.lists], work.keys).value.flatten(0, 1).expand(-1, q.shape[1], -1, -1) for x in (self.k, self.v)
        )
        if self.u is None or self.w is None:
            return q, k, v, None, None
        u, w = _Rows(self.u[work.heads], work.rows).value, _Rows(self.w[work.heads], work.keys).value
        return q, k, v, u.flatten(0, 1), w.flatten(0, 1)

    def _apart(self, work: _Work, x: Tensor) -> Tensor:
        """[B Hk, ..] to [B, Hk, ..]."""
        return torch.unflatten(x, 0, self.q[work.heads].shape[:2])

    def works(self) -> Iterator[_Work]:
        """All tiles, by strips and by rows or, where rows are few queries, by columns."""
        tiles, sides = self.tiles, [(self.tiles.rows, self.q.shape[-2]), (KEYS, self.k.shape[-2])]
        (size, count), other_side = sides if self.by_row else sides[::-1]
        kinds = [*zip((STRIP, 1), tiles.by_strip, strict=True)] if self.by_row else [(1, tiles.by_column)]
        for many, entries in kinds:
            height = many * size
            starts, lines, at_once = entries.starts.tolist(), -(-count // height), self._at_once(height)
            for line in range(len(starts) - 1):
                list_, own = divmod(line, lines)
                part = self._heads(*divmod(list_, tiles.heads))
                mine = slice(own * height, min((own + 1) * height, count))
                for first in range(starts[line], starts[line + 1], at_once):
                    now = slice(first, min(first + at_once, starts[line + 1]))
                    theirs = _rows(entries.other[now], *other_side)
                    rows, keys = (mine, theirs) if self.by_row else (theirs, mine)
                    yield _Work(part, part[:2], rows, keys, *self._penalty(entries.place[now], rows, keys))

    def _at_once(self, height: int) -> int:
        """Tiles of a piece: as many as there are, unless its scores or its bias are in memory."""
        if self.is_fused and self.u is None:
            return max(self.tiles.counts)
        batch, heads, group = self.q.shape[:3]
        shared = batch // self.tiles.batch * heads * group // self.tiles.heads
        most = _MOST_BIASES if self.is_fused else _MOST_NUMBERS
        return max(1, most // (shared * height * (KEYS if self.by_row else self.tiles.rows)))

    def _penalty(
        self, places: Tensor, rows: slice | Tensor, keys: slice | Tensor
    ) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Penalty and empty rows of tiles side by side, or one under the other; None: all of them are full."""
        is_full = places < 0
        if bool(is_full.all()):
            return None, None
        bits = self.tiles.bits[places].masked_fill_(is_full[:, None], -1)
        penalty, is_empty = _unpack(bits, self.dtype), bits == 0
        if self.by_row:
            penalty, is_empty = penalty.transpose(0, 1).flatten(1), is_empty.all(0)
        else:
            penalty, is_empty = penalty.flatten(0, 1), is_empty.flatten()
        return penalty[: _count(rows), : _count(keys)], is_empty[: _count(rows)]

    def _heads(self, sequence: int, list_: int) -> tuple[slice, slice, slice]:
        batch = slice(sequence, sequence + 1) if self.tiles.batch > 1 else slice(None)
        if self.tiles.heads <= self.key_heads:
            size = self.key_heads // self.tiles.heads
            return batch, slice(list_ * size, (list_ + 1) * size), slice(None)
        lists = self.tiles.heads // self.key_heads
        size = self.q.shape[2] // lists
        first = list_ % lists * size
        return batch, slice(list_ // lists, list_ // lists + 1), slice(first, first + size)


def _bias(u: Tensor | None, w: Tensor | None, penalty: Tensor | None) -> Tensor | None:
    """What is added to q.k, summed for itself: it may be large, and then little."""
    if u is None or w is None:
        return penalty
    return u @ w.mT if penalty is None else (u @ w.mT).add_(penalty)


def _count(rows: slice | Tensor) -> int:
    return rows.stop - rows.start if isinstance(rows, slice) else len(rows)


def _rows(tiles: Tensor, size: int, tokens: int) -> slice | Tensor:
    """The tokens of tiles that are in order, as a slice if they are one behind the other; the last may be cut off."""
    tiles = tiles.long()
    first, last = int(tiles[0]), int(tiles[-1])
    if last - first + 1 == len(tiles):
        return slice(first * size, min((last + 1) * size, tokens))
    rows = tiles if size == 1 else (tiles[:, None] * size + torch.arange(size)).flatten()
    return rows[: len(rows) - max(0, (last + 1) * size - tokens)]


def _unpack(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Minus infinity where bits are not set, else 0: [.., 64]."""
    return _by_byte(dtype).index_select(0, bits.flatten().view(torch.uint8).int()).view(*bits.shape, KEYS)


@functools.cache
@torch.inference_mode(False)  # what is kept must also serve gradients
def _by_byte(dtype: torch.dtype) -> Tensor:
    is_set = (torch.arange(256)[:, None] >> torch.arange(8)) % 2 == 1
    return torch.where(is_set, 0.0, -torch.inf).to(dtype)
