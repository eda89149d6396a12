"""`neighbor` in plain torch: gathers every neighbour's rows, differentiable by autograd as often as one likes.

It serves dtypes and devices that no fused form serves, and it defines what the fused forms compute.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Scores(NamedTuple):
    """Where logits come from: s_ijh = scale q_ih.k_jh - slope_h distance_ij + bias_ijh, each term where it is given.

    Attributes:
        q: [A, H, D] or None.
        k: [M, Hk, D] or None, as q. Consecutive query heads share a key head.
        distance: [A, K] or None.
        slope: [H] or None, as distance.
        bias: [A, K, H] or None.
        scale: Factor of q.k.
    """

    q: Tensor | None
    k: Tensor | None
    distance: Tensor | None
    slope: Tensor | None
    bias: Tensor | None
    scale: float

    @property
    def num_heads(self) -> int:
        """H."""
        if self.q is not None:
            return self.q.shape[1]
        assert self.bias is not None, "no logits"
        return self.bias.shape[2]


class Inverse(NamedTuple):
    """The edges by key instead of by query: compressed rows of incoming edges.

    Attributes:
        offsets: [M + 1] int64. The edges that end at key j stand at offsets[j] to offsets[j + 1] in `edges`.
        edges: [A * K], int32 where that is enough, else int64. An edge's number is query * K + slot. Those of one key
            ascend. What stands before offsets[0] are empty slots.
    """

    offsets: Tensor
    edges: Tensor


class Gradients(NamedTuple):
    """Of a loss, for each tensor of `Scores` and for v; None for what is not given."""

    q: Tensor | None
    k: Tensor | None
    v: Tensor
    distance: Tensor | None
    slope: Tensor | None
    bias: Tensor | None


def attend(scores: Scores, v: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The output [A, H, D] in the dtype of v and lse [A, H], at least in fp32.

    Args:
        scores: The logits.
        v: [M, Hk, D].
        index: [A, K], -1: no neighbour.
    """
    work = torch.promote_types(v.dtype, torch.float32)
    present = (index >= 0)[:, :, None]
    logits = torch.where(present, _logits(scores, index, work), -torch.inf)
    # An empty row attends to everything, and that is thrown away: no infinity is subtracted from another.
    empty = ~present.any(1)
    filled = logits.masked_fill(empty[:, None], 0)
    weights = filled.softmax(1).masked_fill(empty[:, None], 0)
    rows = _gather(v.to(work), index, scores.num_heads)
    lse = filled.logsumexp(1).masked_fill(empty, -torch.inf)
    return (weights[..., None] * rows).sum(1).to(v.dtype), lse


def _logits(scores: Scores, index: Tensor, work: torch.dtype) -> Tensor:
    """[A, K, H]. Empty slots hold anything finite."""
    empty = index < 0
    logits = torch.zeros(*index.shape, scores.num_heads, dtype=work, device=index.device)
    if scores.q is not None and scores.k is not None:
        keys = _gather(scores.k.to(work), index, scores.num_heads)
        logits = logits + (scores.q.to(work)[:, None] * keys).sum(-1) * scores.scale
    if scores.distance is not None and scores.slope is not None:
        logits = logits - scores.distance.to(work).masked_fill(empty, 0)[:, :, None] * scores.slope.to(work)
    if scores.bias is not None:
        logits = logits + scores.bias.to(work).masked_fill(empty[:, :, None], 0)
    return logits


def _gather(rows: Tensor, index: Tensor, num_heads: int) -> Tensor:
    """Rows [M, Hk, D] of each neighbour: [A, K, H, D], zeros in empty slots."""
    if rows.shape[0] == 0:
        return rows.new_zeros(*index.shape, num_heads, rows.shape[2])
    found = rows.index_select(0, index.clamp_min(0).flatten()).view(*index.shape, *rows.shape[1:])
    # Not multiplied by 0: the row that stands in for an empty slot may hold infinities.
    found = found.masked_fill((index < 0)[:, :, None, None], 0)
    return found if rows.shape[1] == num_heads else found.repeat_interleave(num_heads // rows.shape[1], 2)
