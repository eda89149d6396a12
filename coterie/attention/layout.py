"""Where the sequences of a packed batch lie, and which of its tokens count: made once and read by every layer."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from coterie.attention import checks

if TYPE_CHECKING:
    from coterie.attention.statistics_request import StatisticsRequest

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8)


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Of a batch, made by `lay_out`. Its tensors are shared by all who use it: they are read and never written."""

    start: Tensor
    """Int32 [B, T], the first position of a token's sequence. Padding has start = T and stop = 0: it sees nothing."""
    stop: Tensor
    """Int32 [B, T], the position after its last one."""
    queries: Tensor
    """Bool [B, T]: tokens whose attention counts."""
    labels: Tensor | None = None
    """Int32 [B, T], -1 for none."""
    silence: Tensor | None = None
    """Float32 [B, T], 0 for tokens that count and infinity for others; None: all count."""
    is_packed: bool = False
    """Whether there may be several sequences, or padding, in an element of the batch."""
    _counts: dict[tuple[object, ...], Tensor] = field(default_factory=dict)

    def runs(self) -> list[tuple[int, int, int]]:
        """(batch element, start, stop) of each sequence. Reads the tensors, so on a GPU it waits for them."""
        batch, start = (self.start == positions(self.start)).nonzero(as_tuple=True)
        return list(zip(batch.tolist(), start.tolist(), self.stop[batch, start].tolist(), strict=True))

    def counts(self, which: StatisticsRequest, causal: bool) -> dict[str, Tensor]:
        """Float32 by name, the numbers of queries in the means `received` and `fai` [B, T], and with a label [B, L]."""
        asked = {"received": which.received, "fai": which.fai, "mass": which.mass}
        return {name: self._count(name, asked[name], causal) for name in asked if asked[name]}

    def _count(self, name: str, asked: object, causal: bool) -> Tensor:
        key = (name, asked, causal)
        if key not in self._counts:
            # Who comes next may keep gradients, for which tensors of inference mode are of no use.
            with torch.inference_mode(False), torch.no_grad():
                self._counts[key] = _count(self, name, asked, causal)  # type: ignore[arg-type]
        return self._counts[key]


def lay_out(
    q: Tensor, *, segments: Tensor | None = None, queries: Tensor | None = None, labels: Tensor | None = None
) -> Layout:
    """What `attention_statistics` needs to know of a batch: worth making once where several layers see the same batch.

    Args:
        q: [B, ., T, .], for its sizes and its device.
        segments: As for `attention_statistics`.
        queries: Likewise.
        labels: Likewise.

    Raises:
        ValueError: A tensor has the wrong shape, dtype or device.
    """
    batch, _, tokens, _ = q.shape
    if segments is None and queries is None and labels is None:
        return _lay_out_whole(batch, tokens, q.device)
    checks.check_device(q=q, segments=segments, queries=queries, labels=labels)
    for name, tensor, dtypes in (
        ("segments", segments, INTEGERS), ("queries", queries, (torch.bool,)), ("labels", labels, INTEGERS)
    ):  # fmt: skip
        if tensor is not None:
            checks.check_dtype(name, tensor, *dtypes)
            checks.check_shape(name, tensor, "B T", {"B": batch, "T": tokens})
    whole = _lay_out_whole(batch, tokens, q.device)
    start, stop = (whole.start, whole.stop) if segments is None else _bounds(segments)
    counted = whole.queries if queries is None else queries
    if segments is not None:
        counted = counted & (segments >= 0)
    silence = None if segments is None and queries is None else torch.where(counted, 0.0, torch.inf).float()
    numbers = None if labels is None else labels.clamp(min=-1).int()
    return Layout(start, stop, counted, numbers, silence, segments is not None)


@functools.lru_cache(maxsize=8)
def _lay_out_whole(batch: int, tokens: int, device: torch.device) -> Layout:
    """Each element of the batch is one sequence of which every token counts."""
    with torch.inference_mode(False):
        start = torch.zeros(batch, tokens, dtype=torch.int32, device=device)
        return Layout(start, torch.full_like(start, tokens), torch.ones_like(start, dtype=torch.bool))


def positions(like: Tensor) -> Tensor:
    """Int32 [T] for a tensor [B, T]."""
    return torch.arange(like.shape[1], dtype=torch.int32, device=like.device)


def _bounds(segments: Tensor) -> tuple[Tensor, Tensor]:
    position, size = positions(segments), segments.shape[1]
    is_first = torch.ones_like(segments, dtype=torch.bool)
    is_first[:, 1:] = segments[:, 1:] != segments[:, :-1]
    is_last = is_first.roll(-1, 1)
    start = torch.where(is_first, position, 0).cummax(1).values.masked_fill(segments < 0, size)
    stop = torch.where(is_last, position + 1, size).flip(1).cummin(1).values.flip(1)
    return start, stop.masked_fill(segments < 0, 0)


def _count(layout: Layout, name: str, asked: tuple[int, int | None] | int, causal: bool) -> Tensor:
    position, start, stop = positions(layout.start), layout.start, layout.stop
    if name == "received":
        return _count_between(layout.queries, position if causal else start, stop)
    if isinstance(asked, tuple):
        low, high = asked
        until = stop if high is None else torch.minimum(stop, position + min(high, len(position)) + 1)
        return _count_between(layout.queries, position + min(low, len(position)), until)
    assert layout.labels is not None
    labels = torch.arange(asked, device=start.device)
    return ((layout.labels[..., None] == labels) & layout.queries[..., None]).sum(1).float()


def _count_between(queries: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """The number of queries at start <= t < stop, for each pair of entries; 0 where stop comes first."""
    before = functional.pad(queries.cumsum(1, dtype=torch.int32), (1, 0))
    size = queries.shape[1]
    first, last = (x.expand_as(queries).clamp(0, size).long() for x in (start, stop))
    return (before.gather(1, torch.maximum(first, last)) - before.gather(1, first)).float()
