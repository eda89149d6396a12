"""Specs as FlexAttention's `mask_mod` and `score_mod`: a second opinion on masks and biases.

The tests run them eagerly. FlexAttention has no backward on the CPU. It has no sink and no gate; both follow from its
output and lse: o * g * sigmoid(lse - sink).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from coterie.attention.attend import NOTHING
from coterie.attention.data import Data, Fields, Pairs
from coterie.attention.spec import EdgeBias, Spec

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def mask_mod(q: Tensor, k: Tensor, spec: Spec, data: Data = NOTHING) -> MaskMod | None:
    """The mask of a spec, for `create_block_mask`; None if it has none.

    Raises:
        ValueError: As `attend` does.
    """
    mask = spec.mask
    if mask is None:
        return None
    fields = spec.read(q, k, data)
    at = torch.zeros((), dtype=torch.long, device=q.device)
    mask.allows(Pairs(fields, at, at, at, at))  # reads and checks all tensors now, not inside of a kernel
    return lambda b, h, i, j: mask.allows(Pairs(fields, b, h, i, j))


def score_mod(q: Tensor, k: Tensor, spec: Spec, data: Data = NOTHING) -> ScoreMod | None:
    """Temperature and biases of a spec, as what FlexAttention does to a score; None if it has none of them.

    Raises:
        ValueError: As `attend` does.
    """
    fields = spec.read(q, k, data)
    batch, heads, queries, keys = fields.sizes
    terms: list[Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = []
    if spec.rank:
        u = fields.term("query_factors", batch, heads, queries, spec.rank).expand(batch, heads, -1, -1)
        w = fields.term("key_factors", batch, heads, keys, spec.rank).expand(batch, heads, -1, -1)
        terms.append(lambda b, h, i, j: (u[b, h, i] * w[b, h, j]).sum(-1))
    if spec.key_bias:
        key_bias = fields.term("key_bias", batch, heads, keys).expand(batch, heads, keys)
        terms.append(lambda b, h, i, j: key_bias[b, h, j])
    if spec.edge_bias:
        terms.append(_edge_term(spec.edge_bias, fields))
    temperature = fields.term("temperature", batch, heads, queries) if spec.temperature else None
    if not terms and temperature is None:
        return None
    divisor = None if temperature is None else temperature.expand(batch, heads, queries)

    def change(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        score = score if divisor is None else score / divisor[b, h, i]
        for term in terms:
            score = score + term(b, h, i, j)
        return score

    return change


def _edge_term(edge: EdgeBias, fields: Fields) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    distance, slope = fields.distance(edge.by_neighbor), fields.term("slope", fields.sizes.heads)
    reach = fields.spread(edge.of(distance)) if edge.by_neighbor else edge.of(distance)
    by_batch = reach.expand(fields.sizes.batch, *reach.shape[-2:])
    by_head = slope.expand(fields.sizes.heads)
    return lambda b, h, i, j: -by_head[h] * by_batch[b, i, j]
