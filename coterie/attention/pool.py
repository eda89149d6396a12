"""Many tokens as few: means, weighted means or the best token of windows or segments, and generalised means."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from coterie.attention.checks import check_broadcast, check_dtype, check_range, check_shape
from coterie.attention.spec import widened

How = Literal["mean", "weighted", "top"]
"""Of a group of tokens: the mean, the mean weighted by their scores, or the first token with the highest score."""

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def pool_windows(
    x: Tensor, size: int, stride: int | None = None, *, how: How = "mean", scores: Tensor | None = None
) -> Tensor:
    """Pool each window of `size` consecutive tokens; differentiable in x, and where they are weights in the scores.

    Args:
        x: [..., N, D].
        size: Tokens in a window. Tokens behind the last whole window are left out.
        stride: From one window's start to the next one's; by default `size`.
        how: What stands for a window.
        scores: Broadcastable to [..., N], unless `how` is a plain mean; weights of at least 0.

    Returns:
        [..., (N - size) // stride + 1, D], or no windows if N < size.

    Raises:
        ValueError: A size or stride below 1, an unknown `how`, or scores that are missing, not read, or do not fit.
    """
    step = size if stride is None else stride
    if size < 1 or step < 1:
        raise ValueError(f"windows of size {size} with stride {step} hold nothing, expected both to be at least 1")
    given = _scores(x, how, scores)
    if x.shape[-2] < size:
        return x[..., :0, :]
    windows = x.unfold(-2, size, step).mT
    if how == "mean":
        return widened(windows).mean(-2).to(x.dtype)
    weights = given.unfold(-1, size, step)
    if how == "top":
        best = weights.argmax(-1)[..., None, None]
        return windows.gather(-2, best.expand(*best.shape[:-1], x.shape[-1])).squeeze(-2)
    return _ratio((widened(windows) * weights[..., None]).sum(-2), weights.sum(-1)).to(x.dtype)


def pool_segments(x: Tensor, segment: Tensor, count: int, *, how: How = "mean", scores: Tensor | None = None) -> Tensor:
    """Pool the tokens of each segment; differentiable in x, and where they are weights in the scores.

    Args:
        x: [B, ..., N, D].
        segment: [N] or [B, N] integers below `count`, in any order; negative: padding, which is not read.
        count: Number of segments. One without tokens gives zeros.
        how: What stands for a segment.
        scores: Broadcastable to [B, ..., N], unless `how` is a plain mean; weights of at least 0.

    Returns:
        [B, ..., count, D].

    Raises:
        ValueError: A segment out of range, an unknown `how`, or scores that are missing, not read, or do not fit.
    """
    check_dtype("segment", segment, *_INTEGERS)
    check_shape("segment", segment, "N" if segment.dim() == 1 else "B N", {"B": x.shape[0], "N": x.shape[-2]})
    check_range("segment", segment, torch.iinfo(torch.int64).min, count)
    given = _scores(x, how, scores)
    batched = segment.view(-1, *[1] * (x.dim() - 3), x.shape[-2]) if segment.dim() > 1 else segment
    # One more segment takes padding.
    at = torch.where(batched < 0, count, batched.long()).expand(x.shape[:-1])
    x = x.masked_fill((at == count)[..., None], 0)
    if how == "top":
        return _best(x, at, given, count)
    weights = given.masked_fill(at == count, 0) if how == "weighted" else widened(torch.ones_like(x[..., 0]))
    total = weights.new_zeros(*x.shape[:-2], count + 1).scatter_add(-1, at, weights)
    rows = widened(x) * weights[..., None]
    sums = rows.new_zeros(*x.shape[:-2], count + 1, x.shape[-1]).scatter_add(-2, at[..., None].expand_as(rows), rows)
    return _ratio(sums, total)[..., :count, :].to(x.dtype)


def generalised_mean(x: Tensor, power: Tensor, *, kept: Tensor | None = None, least: float = 1e-6) -> Tensor:
    """(mean over N of x^p)^(1/p), by logarithms: no power overflows. 1 is the mean, infinity would be the maximum.

    Args:
        x: [..., N, D]; what is below `least` counts as `least`.
        power: p, broadcastable to [..., D]; not 0.
        kept: Bool, broadcastable to [..., N]: the tokens that count; by default all. Where none does, the mean is 0.
        least: Above 0.

    Returns:
        [..., D] in the dtype of x.
    """
    kept = torch.ones(x.shape[-2], dtype=torch.bool, device=x.device) if kept is None else kept
    # Where none counts all do, and that is thrown away: no infinity is subtracted from another.
    empty = ~kept.any(-1, keepdim=True)
    left_out = ~(kept | empty)[..., None]
    logs = widened(x).masked_fill(~kept[..., None], 1).clamp(min=least).log()
    total = (power.unsqueeze(-2) * logs if power.dim() else power * logs).masked_fill(left_out, -torch.inf)
    count = (~left_out).sum(-2).to(logs.dtype)
    return ((total.logsumexp(-2) - count.log()) / power).exp().masked_fill(empty, 0).to(x.dtype)


def _scores(x: Tensor, how: How, scores: Tensor | None) -> Tensor:
    """Scores of all tokens, in float32 or more; for a plain mean no numbers."""
    if how not in get_args(How):
        raise ValueError(f"how is {how!r}, expected one of {', '.join(get_args(How))}")
    if (scores is None) != (how == "mean"):
        raise ValueError(f"scores are {'missing' if scores is None else 'given'}, but how is {how!r}")
    if scores is None:
        return widened(x.new_empty(0))
    check_broadcast("scores", scores, *x.shape[:-1])
    return widened(scores).expand(x.shape[:-1])


def _best(x: Tensor, at: Tensor, scores: Tensor, count: int) -> Tensor:
    """The first row of each segment with its highest score."""
    tokens = torch.arange(x.shape[-2], device=x.device).expand_as(at)
    highest = scores.new_zeros(*at.shape[:-1], count + 1).scatter_reduce(-1, at, scores, "amax", include_self=False)
    chosen = torch.where(scores == highest.gather(-1, at), tokens, x.shape[-2])
    none = torch.full_like(highest, x.shape[-2], dtype=torch.long)
    first = none.scatter_reduce(-1, at, chosen, "amin")[..., :count, None]
    # A row of zeros behind the tokens stands for segments without any.
    rows = torch.cat([x, torch.zeros_like(x[..., :1, :])], -2)
    return rows.gather(-2, first.expand(*first.shape[:-1], x.shape[-1]))


def _ratio(sums: Tensor, total: Tensor) -> Tensor:
    return sums / total.masked_fill(total == 0, 1)[..., None]
