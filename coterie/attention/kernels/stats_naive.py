"""Attention statistics by their definitions, with the whole map in memory: for comparisons and small inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from coterie.attention.naive import share_heads

if TYPE_CHECKING:
    from coterie.attention.layout import Layout
    from coterie.attention.statistics_request import StatisticsRequest


def naive_statistics(
    q: Tensor, k: Tensor, lse: Tensor, which: StatisticsRequest, layout: Layout, scale: float, causal: bool
) -> dict[str, Tensor]:
    """What `tiled_statistics` gives."""
    position = torch.arange(q.shape[2], device=q.device)
    behind = position[:, None] - position
    allowed = (position >= layout.start[..., None]) & (position < layout.stop[..., None])
    if causal:
        allowed = allowed & (behind >= 0)
    allowed = (allowed & layout.queries[..., None])[:, None]
    logits = (q.float() @ share_heads(k, q.shape[1]).float().mT) * scale - lse[..., None]
    a = logits.masked_fill(~allowed, -torch.inf).exp()
    counts = layout.counts(which, causal)
    return {
        name: statistic / counts[name].clamp(min=1)[:, None] if name in ("received", "fai") else statistic
        for name, statistic in _definitions(a, behind, which, layout).items()
        if getattr(which, name)
    }


def _definitions(a: Tensor, behind: Tensor, which: StatisticsRequest, layout: Layout) -> dict[str, Tensor]:
    """Means over queries are sums as yet."""
    distance = behind.abs().float()
    low, high = which.fai or (0, None)
    horizon = (behind >= low) & (behind <= (len(behind) if high is None else high))
    is_first = behind.new_zeros(1) if not which.sink else torch.arange(len(behind), device=a.device) - layout.start
    labels = torch.zeros_like(layout.start) if layout.labels is None else layout.labels
    of = (labels[..., None] == torch.arange(which.mass, device=a.device)).float()[:, None]
    return {
        "span": (a * distance).sum(-1),
        "entropy": torch.special.entr(a).sum(-1),
        "sink": (a * (is_first < which.sink)[..., None, None, :]).sum(-1),
        "waad": (a * distance.clamp(max=which.waad)).sum(-1),
        "received": a.sum(-2),
        "fai": (a * horizon).sum(-2),
        "mass": of.mT @ a @ of,
    }
