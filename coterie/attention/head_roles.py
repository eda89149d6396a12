"""What attention heads are for: local, global, receiver and sink heads, by where their mass goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coterie.attention.ablation import Head
from coterie.attention.stats import AttentionStatistics

PROXIMITY = 4
"""Sentences closer than this to the reader do not count as read by it (arXiv 2506.19143)."""


@dataclass(frozen=True, slots=True, eq=False)
class HeadProfile:
    """What tells heads apart: per measure one number for each head, [L, Hq] in fp32, NaN where it is not known."""

    layers: tuple[int, ...]
    """Layer of each row."""
    span: Tensor
    """Mean distance looked back, in tokens (arXiv 2510.13554, eq. 7)."""
    sink: Tensor
    """Mean share of attention on the first token."""
    kurtosis: Tensor
    """Fisher kurtosis of what sentences receive from later ones (arXiv 2506.19143): high where few are read by all."""


@dataclass(frozen=True, slots=True)
class HeadRoles:
    """Heads by role, best first. A head may have several roles, or none."""

    local: tuple[Head, ...]
    """Shortest spans: their attention stays within phrases. WAAD is read from them."""
    distant: tuple[Head, ...]
    """Longest spans, the literature's global heads: FAI is read from them. A head that parks its mass on the first
    token has a long span too: see `profile_heads(without_sink=True)`."""
    receiver: tuple[Head, ...]
    """Highest kurtosis of received attention."""
    sink: tuple[Head, ...]
    """Heads that park their mass on the first token."""


def profile_heads(found: Mapping[int, AttentionStatistics], *, without_sink: bool = False) -> HeadProfile:
    """Profile the heads of one forward pass by what was collected: `span`, `sink` of one token, `mass` of sentences.

    Args:
        found: Statistics of all heads, per layer. `mass` is between sentences, labelled in their order.
        without_sink: Leave the first token out of the span, sum (t - s) a_ts / sum a_ts over all s > 0 and t, and the
            first sentence out of the kurtosis. Needs `sink`, and sequences that are neither packed nor padded on the
            left.

    Raises:
        ValueError: Nothing was collected, or `without_sink` without `sink`.
    """
    if not found:
        raise ValueError("found is empty, expected statistics of at least one layer")
    layers = tuple(sorted(found))
    span = [_span_without_sink(found[layer]) if without_sink else _mean(found[layer], "span") for layer in layers]
    sink = [_mean(found[layer], "sink") for layer in layers]
    kurtosis = [_kurtosis(found[layer], int(without_sink)) for layer in layers]
    return HeadProfile(layers, torch.stack(span), torch.stack(sink), torch.stack(kurtosis))


def mean_profile(profiles: Sequence[HeadProfile]) -> HeadProfile:
    """The mean of profiles of the same layers, one per sequence: each sequence counts the same."""
    if not profiles or any(profile.layers != profiles[0].layers for profile in profiles):
        raise ValueError("profiles is empty or mixes layers, expected profiles of the same layers")
    span, sink, kurtosis = (
        torch.stack([getattr(profile, name) for profile in profiles]).mean(0) for name in ("span", "sink", "kurtosis")
    )
    return HeadProfile(profiles[0].layers, span, sink, kurtosis)


def assign_roles(
    profile: HeadProfile, *, local: float = 0.3, distant: float = 0.3, receivers: int = 20, sink: float = 0.3
) -> HeadRoles:
    """Sort heads into roles, ranked over all layers of the profile together; ties go to lower layers and heads.

    Args:
        profile: What tells heads apart.
        local: Share of the heads with the shortest spans (arXiv 2510.13554 takes 30 %), at least one head.
        distant: Share of the heads with the longest spans, at least one head.
        receivers: How many heads of the highest kurtosis (arXiv 2506.19143 takes 20).
        sink: Least mean share of attention on the first token (0.3, as arXiv 2410.10781).
    """
    near = _ranked(profile, profile.span)
    far = _ranked(profile, -profile.span)
    shares = zip(_heads(profile), profile.sink.flatten().tolist(), strict=True)
    return HeadRoles(
        local=tuple(near[: max(1, round(local * len(near)))]),
        distant=tuple(far[: max(1, round(distant * len(far)))]),
        receiver=tuple(_ranked(profile, -profile.kurtosis)[:receivers]),
        sink=tuple(head for head, share in shares if share > sink),
    )


def excess_kurtosis(values: Tensor) -> Tensor:
    """Fisher kurtosis over the last dimension: m4 / m2^2 - 3; NaN below four values, or where all are alike."""
    centred = values - values.mean(-1, keepdim=True)
    second, fourth = (centred.pow(power).mean(-1) for power in (2, 4))
    known = second > 0 if values.shape[-1] >= 4 else torch.zeros_like(second, dtype=torch.bool)
    return torch.where(known, fourth / second**2 - 3, torch.nan)


def _kurtosis(statistics: AttentionStatistics, first: int) -> Tensor:
    """Of the mean attention that each sentence receives from those at least `PROXIMITY` later; mean over the batch."""
    if statistics.mass is None or statistics.mass_queries is None:
        return _unknown(statistics)
    per_element = []
    for mass, count in zip(statistics.mass, statistics.mass_queries, strict=True):
        size = int((count > 0).sum())
        blocks = mass[:, :size, :size] / (count[:size, None] * count[:size])
        received = [blocks[:, at + PROXIMITY :, at].mean(-1) for at in range(first, size - PROXIMITY)]
        per_element.append(excess_kurtosis(torch.stack(received, -1)) if received else _unknown(statistics))
    return torch.stack(per_element).nanmean(0)


def _span_without_sink(statistics: AttentionStatistics) -> Tensor:
    if statistics.span is None or statistics.sink is None or statistics.queries is None:
        raise ValueError("found lacks span or sink, which without_sink needs")
    position = torch.arange(statistics.span.shape[-1], device=statistics.span.device)
    beyond = (statistics.span - statistics.sink * position).sum((0, 2))
    return beyond / (statistics.queries[:, None].float() - statistics.sink).sum((0, 2))


def _mean(statistics: AttentionStatistics, name: str) -> Tensor:
    means = statistics.head_means()
    return means[name] if name in means else _unknown(statistics)


def _unknown(statistics: AttentionStatistics) -> Tensor:
    sized = next(x for x in (statistics.span, statistics.sink, statistics.waad, statistics.mass) if x is not None)
    return torch.full_like(sized.flatten(2)[0, :, 0], torch.nan)


def _ranked(profile: HeadProfile, key: Tensor) -> list[Head]:
    """Heads by ascending key; ties in their order, what is not known left out."""
    heads, values = _heads(profile), key.flatten()
    return [heads[index] for index in values.argsort(stable=True).tolist() if not values[index].isnan()]


def _heads(profile: HeadProfile) -> list[Head]:
    return [(layer, head) for layer in profile.layers for head in range(profile.span.shape[1])]
