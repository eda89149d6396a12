"""Attention statistics in plain PyTorch: tiles of the map are made, summed up and overwritten.

A row tile has one near tile, which holds the diagonal and every key at a distance that a band-limited statistic weighs,
and far tiles, where no mask and no such weight applies. Without an unbounded statistic only near tiles are made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from coterie.attention.layout import Layout
    from coterie.attention.statistics_request import StatisticsRequest

ROWS = 64
"""Queries in a tile."""
NARROW = 16
"""The same where a band is no wider, such as WAAD's: most of a higher tile would be outside of it."""
TILE = 1 << 21
"""Entries over all heads of a far tile, or of near tiles that are made together."""
_NOTHING = -1e30
"""Logit of what is not allowed; finite, so that 0 * logit is 0."""


def tiled_statistics(
    q: Tensor, k: Tensor, lse: Tensor, which: StatisticsRequest, layout: Layout, scale: float, causal: bool
) -> dict[str, Tensor]:
    """Row statistics, and column statistics as means over queries.

    Args:
        q: [B, Hq, T, D].
        k: [B, Hk, T, D].
        lse: [B, Hq, T] float32.
        which: What is wanted.
        layout: Where sequences lie, and which tokens are queries. What it calls padding is not read.
        scale: Factor of q.k.
        causal: Whether a query sees no later key.

    Returns:
        By name of the request's fields; each [B, Hq, T], `mass` [B, Hq, L, L].
    """
    sums = {name: lse.new_zeros(q.shape[:3]) for name in _tokenwise(which)}
    if which.mass:
        sums["mass"] = lse.new_zeros(*q.shape[:2], which.mass, which.mass)
    for b, start, stop in layout.runs():
        rows = slice(start, stop)
        labels = None if layout.labels is None else layout.labels[b, rows]
        run = _Run(q[b, :, rows], k[b, :, rows], lse[b, :, rows], layout.queries[b, rows], labels, which, scale, causal)
        for name, values in run.statistics().items():
            sums[name][b, :, slice(None) if name == "mass" else rows] += values
    for name, count in layout.counts(which, causal).items():
        if name != "mass":
            sums[name] /= count.clamp(min=1)[:, None]
    return sums


def _tokenwise(which: StatisticsRequest) -> list[str]:
    return [name for name in ("span", "entropy", "sink", "waad", "received", "fai") if getattr(which, name)]


@dataclass(frozen=True, slots=True, eq=False)
class _Near:
    """What depends in a near tile on the distance alone. [R, C]."""

    is_future: Tensor
    distance: Tensor
    short_of_window: Tensor
    """max(0, W - distance): the sum of a_ts min(|t - s|, W) over all s is W less what these weights sum to."""
    in_horizon: Tensor


class _Run:
    """One sequence: [Hq, n, D] queries and [Hk, n, D] keys."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        lse: Tensor,
        queries: Tensor,
        labels: Tensor | None,
        which: StatisticsRequest,
        scale: float,
        causal: bool,
    ) -> None:
        self.q, self.lse, self.queries, self.labels = q, lse, queries, labels
        self.which, self.scale, self.causal = which, scale, causal
        self.heads, self.size, _ = q.shape
        # A further channel of ones takes in the log-sum-exp, so that the product is the logarithm of the map.
        self.keys = torch.cat([k.float(), k.new_ones(*k.shape[:2], 1, dtype=torch.float32)], -1)
        self.low, high = which.fai or (0, 0)
        self.high = self.size if high is None else high
        self.is_endless = which.fai is not None and self.high >= self.size
        self.band = max(which.waad - 1, self.low - 1 if self.is_endless else self.high, 0)
        self.has_far = bool(which.span or which.entropy or which.received or which.mass or self.is_endless)
        self.rows = NARROW if self.band <= NARROW else ROWS
        self.sums = {name: lse.new_zeros(lse.shape) for name in _tokenwise(which)}
        self.by_label = lse.new_zeros(self.heads, which.mass, self.size)
        self.masks: dict[tuple[int, int, int], _Near] = {}
        self.scratch = (lse.new_empty(0), lse.new_empty(0))

    def statistics(self) -> dict[str, Tensor]:
        together = 0 if self.has_far or not self.causal or self.which.sink else self._add_bands()
        for start in range(together, self.size, ROWS):
            stop = min(start + ROWS, self.size)
            if bool(self.queries[start:stop].any()):
                self._add_rows(start, stop)
        for name in ("span", "entropy", "sink", "waad"):
            if name in self.sums:
                self.sums[name] *= self.queries
        if self.labels is not None:
            labels = torch.arange(self.which.mass, device=self.labels.device)
            self.sums["mass"] = self.by_label @ (self.labels[:, None] == labels).float()
        return self.sums

    def _add_bands(self) -> int:
        """All whole row tiles, several near tiles at once, where there is nothing but near tiles. Returns their end."""
        rows = self.rows
        width, tiles = rows + self.band, self.size // rows
        step = max(1, TILE // (self.heads * rows * width))
        near = self._near(self.band, self.band + rows, 0, width)
        keys = functional.pad(self.keys, (0, 0, self.band, 0))
        fai = self.lse.new_zeros(self.heads, self.band + tiles * rows)
        for tile in range(0, tiles, step):
            start, stop = tile * rows, min(tile + step, tiles) * rows
            logits, a = self._band_logits(keys, start, stop)
            logits[..., self.band :].masked_fill_(near.is_future[:, self.band :], _NOTHING)
            torch.exp(logits, out=a)
            for row in range(start, min(stop, self.band), rows):  # keys before the first
                a[:, (row - start) // rows, ..., : self.band - row] = 0
            if self.which.waad:
                missing = torch.mul(a, near.short_of_window, out=logits).sum(-1).transpose(1, 2)
                self.sums["waad"][:, start:stop] = self.which.waad - missing.reshape(self.heads, -1)
            if self.which.fai:
                a *= near.in_horizon * self.queries[start:stop].view(-1, 1, rows, 1)
                columns = a.sum(-2).transpose(1, 2).flatten(0, 1)
                for row in range(start, stop, rows):
                    fai[:, row : row + width] += columns[:, (row - start) // rows]
        if self.which.fai:
            self.sums["fai"][:, : tiles * rows] += fai[:, self.band :]
        return tiles * rows

    def _band_logits(self, keys: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """[Hk, row tile, query heads of a key head, R, C], and as much empty space."""
        rows, width, groups = self.rows, self.rows + self.band, self.heads // len(keys)
        q = self._scaled(start, stop).view(len(keys), groups, -1, rows, keys.shape[-1]).transpose(1, 2)
        windows = keys[:, start : stop + self.band].unfold(1, width, rows)
        shape = (len(keys), (stop - start) // rows, groups, rows, width)
        logits, space = self._buffers(math.prod(shape))
        torch.bmm(
            q.reshape(-1, groups * rows, q.shape[-1]), windows.flatten(0, 1), out=logits.view(-1, groups * rows, width)
        )
        return logits.view(shape), space.view(shape)

    def _scaled(self, start: int, stop: int) -> Tensor:
        """Queries [Hq, R, D + 1] whose product with a key is the logarithm of an entry of the map."""
        return torch.cat([self.q[:, start:stop].float() * self.scale, -self.lse[:, start:stop, None]], -1)

    def _add_rows(self, start: int, stop: int) -> None:
        near_start = max(0, start - self.band)
        near_stop = stop if self.causal else min(self.size, stop + self.band)
        q = self._scaled(start, stop).view(len(self.keys), -1, self.keys.shape[-1])
        if self.which.sink:
            self._add_sink(q, start, stop)
        if self.which.waad or self.has_far or self.which.fai:
            self._add_near(q, start, stop, near_start, near_stop)
        if self.has_far:
            width = max(1, TILE // (self.heads * ROWS))
            for first, last in ((0, near_start), (near_stop, self.size if not self.causal else near_stop)):
                for begin in range(first, last, width):
                    self._add_far(q, start, stop, begin, min(begin + width, last))

    def _logits(self, q: Tensor, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """Logarithms of the map [Hq, R, C], and as much empty space; both are overwritten by the next tile."""
        shape = (self.heads, q.shape[0] * q.shape[1] // self.heads, end - begin)
        logits, space = self._buffers(math.prod(shape))
        torch.bmm(q, self.keys[:, begin:end].mT, out=logits.view(len(q), -1, end - begin))
        return logits.view(shape), space.view(shape)

    def _buffers(self, numel: int) -> tuple[Tensor, Tensor]:
        if self.scratch[0].numel() < numel:
            self.scratch = (self.lse.new_empty(numel), self.lse.new_empty(numel))
        return self.scratch[0][:numel], self.scratch[1][:numel]

    def _add_sink(self, q: Tensor, start: int, stop: int) -> None:
        logits, _ = self._logits(q, 0, min(self.which.sink, self.size))
        if self.causal:
            logits.masked_fill_(self._near(start, stop, 0, logits.shape[-1]).is_future, _NOTHING)
        self.sums["sink"][:, start:stop] = logits.exp_().sum(-1)

    def _add_near(self, q: Tensor, start: int, stop: int, begin: int, end: int) -> None:
        logits, a = self._logits(q, begin, end)
        near = self._near(start, stop, begin, end)
        if self.causal:
            own = slice(start - begin, None)
            logits[..., own].masked_fill_(near.is_future[:, own], _NOTHING)
        torch.exp(logits, out=a)
        self._add_entropy(a, logits, start, stop)
        space = logits
        if self.which.span:
            self.sums["span"][:, start:stop] += torch.mul(a, near.distance, out=space).sum(-1)
        if self.which.waad:
            missing = torch.mul(a, near.short_of_window, out=space).sum(-1)
            self.sums["waad"][:, start:stop] = self.which.waad - missing
        self._add_columns(a, start, stop, begin, end)
        if self.which.fai:
            a *= near.in_horizon
            self.sums["fai"][:, begin:end] += self._column_sums(a, self.queries[None, start:stop])[:, 0]

    def _add_far(self, q: Tensor, start: int, stop: int, begin: int, end: int) -> None:
        logits, a = self._logits(q, begin, end)
        torch.exp(logits, out=a)
        self._add_entropy(a, logits, start, stop)
        if self.which.span:
            # Distances to the tile's near edge and from there to the key, both positive, so that nothing cancels.
            edge = end if end <= start else begin
            rows = (torch.arange(start, stop, device=a.device) - edge).abs().float()
            columns = (torch.arange(begin, end, device=a.device) - edge).abs().float()
            beyond = torch.mv(a.view(-1, end - begin), columns).view(self.heads, -1)
            self.sums["span"][:, start:stop] += rows * a.sum(-1) + beyond
        received = self._add_columns(a, start, stop, begin, end)
        if self.is_endless and end <= start:
            if received is None:
                received = self._column_sums(a, self.queries[None, start:stop])[:, 0]
            self.sums["fai"][:, begin:end] += received

    def _add_entropy(self, a: Tensor, logits: Tensor, start: int, stop: int) -> None:
        if self.which.entropy:
            self.sums["entropy"][:, start:stop] -= torch.mul(a, logits, out=logits).sum(-1)

    def _add_columns(self, a: Tensor, start: int, stop: int, begin: int, end: int) -> Tensor | None:
        """Returns what was added to `received`."""
        queries, columns, added = self.queries[start:stop], slice(begin, end), None
        if self.which.received:
            added = self._column_sums(a, queries[None])[:, 0]
            self.sums["received"][:, columns] += added
        if self.labels is not None:
            labels = self.labels[start:stop]
            present = torch.unique(labels[queries & (labels >= 0)])
            sums = self._column_sums(a, (labels == present[:, None]) & queries)
            self.by_label[:, present, columns] += sums
        return added

    def _column_sums(self, a: Tensor, weights: Tensor) -> Tensor:
        """[Hq, R, C] map and [N, R] weights of rows: [Hq, N, C]."""
        return weights.float().expand(len(a), -1, -1).bmm(a)

    def _near(self, start: int, stop: int, begin: int, end: int) -> _Near:
        key = (start - begin, stop - start, end - begin)
        if key not in self.masks:
            device = self.q.device
            behind = torch.arange(start, stop, device=device)[:, None] - torch.arange(begin, end, device=device)
            distance = behind.abs().float()
            in_horizon = (behind >= self.low) & (behind <= self.high)
            short = (self.which.waad - distance).clamp(min=0)
            self.masks[key] = _Near(behind < 0, distance, short, in_horizon.float())
        return self.masks[key]
