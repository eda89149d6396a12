"""What the paper says of collapsed and symmetric scores."""

from __future__ import annotations

import torch
from torch import Tensor

from coterie.attention.mechanisms.base import Context, Heads
from coterie.attention.mechanisms.scores import Collapsed, Symmetric
from coterie.attention.naive import naive_attention

HEADS = Heads(2, 2, 4, 6)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_collapsed_is_ordinary_attention_where_its_matrix_is_the_product_of_two() -> None:
    x, v, (w_q, w_k) = normal(1, 5, 6), normal(1, 2, 5, 4), normal(2, 2, 6, 4)
    module = Collapsed().module(HEADS).double()
    with torch.no_grad():
        module.get_parameter("w").copy_(w_q @ w_k.mT * (6 / 4) ** 0.5)
    expected, _ = naive_attention(x[:, None] @ w_q, x[:, None] @ w_k, v)
    nothing = torch.full((1, 2, 5, 4), torch.nan, dtype=torch.float64)
    torch.testing.assert_close(module(nothing, nothing, v, Context(features=x)), expected)


def test_symmetric_has_half_the_parameters_of_queries_and_keys() -> None:
    count = sum(p.numel() for p in Symmetric().module(HEADS).parameters())
    assert 2 * count == 2 * (HEADS.features * HEADS.queries * HEADS.width)


def test_symmetric_scores_are_the_same_both_ways() -> None:
    """p_ij Z_i = p_ji Z_j: with identity values the output is the map, and its lse are the Z."""
    x, identity = normal(1, 5, 6), torch.eye(5, dtype=torch.float64).expand(1, 2, 5, 5)
    module = Symmetric().module(HEADS).double()
    weights = module(identity, identity, identity, Context(features=x))
    projected = x[:, None] @ module.get_parameter("t")
    _, lse = naive_attention(projected, projected, identity)
    scores = weights.log() + lse[..., None]
    torch.testing.assert_close(scores, scores.mT)
