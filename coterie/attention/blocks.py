"""Which tiles of the map of queries and keys hold anything, so that a kernel passes over the rest.

Tiles in which all pairs are allowed are listed, no more. For tiles in which some are, there is a bit for each pair: 64
keys, so that a query's bits are one number. Every mask is thereby the same to a kernel, and is computed once for all
layers and passes that share it.
"""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from coterie.attention.data import Field, Fields, Pairs, Side
from coterie.attention.masks import And, Listed, Mask, Or
from coterie.attention.ranges import Tiles, Verdict

KEYS = 64
"""Of a tile."""
MOST_ROWS = {"cpu": 256, "cuda": 128}
"""Queries of a tile, where lists do not change from fewer to fewer."""
STRIP = 3
"""Rows of tiles on a CPU, 768 queries: torch's flash attention takes its largest blocks from there on."""
_LEAST_COMMON = 4
"""Tiles of a strip, below which a piece more costs what it saves."""
_PAIRS_AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 24}
_MOST_KEPT = 32


class Entries(NamedTuple):
    """Tiles by row or by column of tiles, in all lists one after the other."""

    starts: Tensor
    """Int64, by list and row: where its tiles begin; one number more says where the last ends."""
    other: Tensor
    """Int32 [E], the column (or row) of each tile."""
    place: Tensor
    """Int32 [E], where in `TileLists.bits` the tile's bits are, if it has any."""


@dataclass(frozen=True, eq=False)
class TileLists:
    """Tiles of `rows` queries and 64 keys that hold allowed pairs: for each list of the batch and the heads."""

    rows: int
    batch: int
    """How many lists the batch has: 1, or one for each sequence."""
    heads: int
    """How many lists the heads have; as many consecutive heads as divide among them share one."""
    counts: tuple[int, int]
    """Rows and columns of tiles."""
    tiles: tuple[Tensor, Tensor]
    """Int64 [E, 4], list of the batch, of the heads, row and column, in this order: tiles that are full, and others."""
    bits: Tensor
    """Int64 [E, rows] of the others: bit c says whether the query may attend to key c of the tile."""
    unread: Tensor | None
    """Bool [batch, M], keys to which nobody may attend; None: there are none."""
    idle: Tensor | None
    """Bool [batch, N], queries that may attend to nothing; None: there are none."""

    @property
    def share(self) -> float:
        """Of all tiles those that are listed."""
        listed = sum(len(tiles) for tiles in self.tiles)
        return listed / max(1, self.batch * self.heads * math.prod(self.counts))

    @functools.cached_property
    def by_query(self) -> tuple[Entries, Entries]:
        """By row of tiles: full ones, and others. With `by_key` what the form in Triton reads."""
        return self._entries(self.tiles[0], 2), self._entries(self.tiles[1], 2)

    @functools.cached_property
    def by_key(self) -> tuple[Entries, Entries]:
        """By column of tiles: full ones, and others."""
        return self._entries(self.tiles[0], 3), self._entries(self.tiles[1], 3)

    @functools.cached_property
    def longest(self) -> int:
        """How many times as long as the mean the longest list of a column of tiles is, rounded up."""
        lengths = self.by_key[0].starts.diff() + self.by_key[1].starts.diff()
        return math.ceil(int(lengths.max()) * len(lengths) / max(1, int(lengths.sum())))

    @functools.cached_property
    def by_strip(self) -> tuple[Entries, Entries]:
        """Full tiles that all `STRIP` rows of a strip have, by strip, and all others by row, full ones with place -1.

        With `by_column` what the form in torch reads.
        """
        full, columns, strips = self.tiles[0], self.counts[1], -(-self.counts[0] // STRIP)
        number = self._line(full, strips, full[:, 2] // STRIP) * columns + full[:, 3]
        number, which, count = torch.unique(number, return_inverse=True, return_counts=True)
        line = number // columns
        is_common = count == (self.counts[0] - line % strips * STRIP).clamp(max=STRIP)
        is_common &= line[is_common].bincount(minlength=self.batch * self.heads * strips)[line] >= _LEAST_COMMON
        shared = number[is_common]
        common = self._sorted(shared // columns, shared % columns, strips, torch.full_like(shared, -1))
        return common, self._beside_mixed(full[~is_common[which]], 2)

    @functools.cached_property
    def by_column(self) -> Entries:
        """All by column of tiles; full ones have place -1."""
        return self._beside_mixed(self.tiles[0], 3)

    def _beside_mixed(self, full: Tensor, major: int) -> Entries:
        """Some full tiles, with place -1, and all mixed ones."""
        some = self.tiles[1]
        place = torch.arange(-len(full), len(some), device=some.device).clamp(min=-1)
        return self._entries(torch.cat([full, some]), major, place)

    def _entries(self, tiles: Tensor, major: int, place: Tensor | None = None) -> Entries:
        count = self.counts[major - 2]
        return self._sorted(self._line(tiles, count, tiles[:, major]), tiles[:, 5 - major], count, place)

    def _line(self, tiles: Tensor, count: int, at: Tensor) -> Tensor:
        """The number of a line, where each list has `count` of them."""
        return (tiles[:, 0] * self.heads + tiles[:, 1]) * count + at

    def _sorted(self, line: Tensor, other: Tensor, count: int, place: Tensor | None = None) -> Entries:
        order = (line * max(self.counts) + other).argsort()
        lines = torch.arange(self.batch * self.heads * count + 1, device=line.device)
        starts = torch.searchsorted(line[order], lines)
        return Entries(starts, other[order].int(), (order if place is None else place[order]).int())


class _Kept(NamedTuple):
    """Lists, and what they were made of."""

    key: object
    read: dict[tuple[Side, Field] | str, tuple[weakref.ref[Tensor], int] | None]
    lists: TileLists

    def serves(self, key: object, fields: Fields) -> bool:
        return self.key == key and all(
            given is None if made is None else given is made[0]() and given is not None and given._version == made[1]
            for made, given in ((made, fields.source(name)) for name, made in self.read.items())
        )


_kept: list[_Kept] = []
"""The last ones, since layers share them."""


def tile_lists(mask: Mask | None, fields: Fields) -> TileLists:
    """The tiles of a mask, from what was computed before where the mask and the tensors that it reads are the same.

    Raises:
        ValueError: A tensor that the mask reads is missing or wrong.
    """
    key = (mask, fields.sizes, fields.device)
    for kept in reversed(_kept):
        if kept.serves(key, fields):
            return kept.lists
    # Who comes next may keep gradients, for which tensors of inference mode are of no use.
    with torch.inference_mode(False), torch.no_grad():
        fresh = Fields(fields.data, fields.sizes, fields.device)
        lists = _Maker(mask, fresh).make()
    given = {name: fresh.source(name) for name in fresh.read}
    if not any(x is not None and x.is_inference() for x in given.values()):  # Those do not tell when they change.
        read = {name: None if x is None else (weakref.ref(x), x._version) for name, x in given.items()}
        _kept[:] = [*_kept[1 - _MOST_KEPT :], _Kept(key, read, lists)]
    return lists


class _Maker:
    """Tiles by what a mask says of ranges; then those that may be mixed pair by pair, a few at a time."""

    def __init__(self, mask: Mask | None, fields: Fields) -> None:
        self.mask, self.fields, self.sizes, self.device = mask, fields, fields.sizes, fields.device
        self.rows = min([MOST_ROWS[fields.device.type], *(leaf.rows & -leaf.rows for leaf in _listed(mask))])
        self.counts = -(-self.sizes.queries // self.rows), -(-self.sizes.keys // KEYS)
        self.batch = self.heads = 1

    def make(self) -> TileLists:
        full, mixed = self._judge()
        size = self.batch * self.counts[1] * KEYS, self.batch * self.counts[0] * self.rows
        self.read, self.active = (torch.zeros(x, dtype=torch.bool, device=self.device) for x in size)
        self.read.view(-1, self.counts[1], KEYS)[full[:, 0], full[:, 3]] = True
        self.active.view(-1, self.counts[0], self.rows)[full[:, 0], full[:, 2]] = True
        at_once = _PAIRS_AT_ONCE[self.device.type] // (self.rows * KEYS)
        found = [self._look(mixed[first : first + at_once]) for first in range(0, len(mixed), at_once)]
        full = torch.cat([full, *(whole for whole, _, _ in found)])
        some = torch.cat([mixed[:0], *(some for _, some, _ in found)])
        bits = torch.cat([mixed.new_zeros(0, self.rows), *(bits for _, _, bits in found)])
        unread = ~self.read.view(self.batch, -1)[:, : self.sizes.keys]
        idle = ~self.active.view(self.batch, -1)[:, : self.sizes.queries]
        return TileLists(
            self.rows, self.batch, self.heads, self.counts, (full, some), bits,
            unread if bool(unread.any()) else None, idle if bool(idle.any()) else None,
        )  # fmt: skip

    def _judge(self) -> tuple[Tensor, Tensor]:
        """Tiles that are full, and those that may be mixed: [E, 4] as in `TileLists.tiles`."""
        b, i, j = (torch.arange(size, device=self.device) for size in (self.sizes.batch, *self.counts))
        j = j if (some := self._candidates()) is None else some
        verdict = Verdict(j >= 0, j >= 0)
        while self.mask is not None:
            h = torch.arange(self.heads, device=self.device)
            index = b[:, None, None, None], h[:, None, None], i[:, None], j.clamp(min=0)
            share = self.sizes.heads // self.heads
            tiles = Tiles(self.fields, *index, rows=self.rows, columns=KEYS, heads=share)
            said: Any = self.mask.allows(tiles)  # a Verdict, since it was given Ranges
            verdict = Verdict(j >= 0, j >= 0) & said
            if tiles.lists == self.heads:
                break
            if some is not None:
                j = j.repeat_interleave(tiles.lists // self.heads, 1)
            self.heads = tiles.lists
        may, must = verdict.may, verdict.must & ((j + 1) * KEYS <= self.sizes.keys)
        shape = torch.broadcast_shapes((1, 1, len(i), 1), may.shape, j.shape)  # type: ignore[no-untyped-call]
        self.batch = shape[0]
        full, mixed = ((may & is_full).expand(shape).nonzero() for is_full in (must, ~must))
        if some is not None:
            for listed in (full, mixed):
                listed[:, 3] = j.expand(shape)[tuple(listed.unbind(1))]
        return full, mixed

    def _candidates(self) -> Tensor | None:
        """Columns of tiles that lists name, [.., rows, L], each once; -1: an empty slot. None: all columns."""
        leaf = next(_listed(self.mask, through_or=False), None)
        given = self.fields.data.blocks
        span = 0 if leaf is None else leaf.block // KEYS if leaf.block % KEYS == 0 else (leaf.block - 1) // KEYS + 2
        if leaf is None or given is None or span * given.shape[-1] >= self.counts[1]:
            return None
        self.fields.in_blocks(leaf.block, leaf.rows)
        ids = given.long()[..., None]
        first, last = ids * leaf.block // KEYS, ((ids + 1) * leaf.block - 1) // KEYS
        tiles = first + torch.arange(span, device=self.device)
        is_none = (ids < 0) | (tiles > last) | (tiles >= self.counts[1])
        tiles = tiles.masked_fill(is_none, -1).flatten(-2).sort(-1).values
        tiles[..., 1:].masked_fill_(tiles[..., 1:] == tiles[..., :-1], -1)
        self.heads = given.shape[1]
        return tiles[:, :, torch.arange(self.counts[0], device=self.device) * self.rows // leaf.rows]

    def _look(self, tiles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of tiles that may be mixed those that are full, those that are mixed, and the bits of these."""
        b, h, row, column = (x[:, None, None] for x in tiles.unbind(1))
        lane = torch.arange(KEYS, device=self.device)
        i, j = row * self.rows + torch.arange(self.rows, device=self.device)[:, None], column * KEYS + lane
        allowed = (i < self.sizes.queries) & (j < self.sizes.keys)
        if self.mask is not None:
            index = i.clamp(max=self.sizes.queries - 1), j.clamp(max=self.sizes.keys - 1)
            head = h * (self.sizes.heads // self.heads)
            allowed = allowed & self.mask.allows(Pairs(self.fields, b, head, *index))
        self.read[((b * self.counts[1] + column) * KEYS + lane)[:, 0][allowed.any(1)]] = True
        self.active[(b * self.counts[0] * self.rows + i)[..., 0][allowed.any(2)]] = True
        whole = (allowed | (i >= self.sizes.queries)).flatten(1).all(1)
        some = allowed.flatten(1).any(1) & ~whole
        bits = (allowed[some].long() << lane).sum(-1)
        return tiles[whole], tiles[some], bits


def _listed(mask: Mask | None, through_or: bool = True) -> Iterator[Listed]:
    """The lists of blocks in a mask; without `through_or` those within which all that it allows lies."""
    if isinstance(mask, Listed):
        yield mask
    elif isinstance(mask, And) or (through_or and isinstance(mask, Or)):
        for part in mask.masks:
            yield from _listed(part, through_or)
